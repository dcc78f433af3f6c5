"""The tables of docs/measurements, from rows of measured servers.

    python3 -m lab.measure_servers.table ROWS.jsonl > table.md
    python3 -m lab.measure_servers.table ROWS.jsonl --settings FOLDER/settings.json

The second prints what today's Corral predicts, by settings that lab.held_settings has just written.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def main() -> None:
    """Print the tables of a file of rows, or what tests read of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", type=Path)
    parser.add_argument("--csv", action="store_true")
    parser.add_argument("--settings", type=Path)
    given = parser.parse_args()
    rows = [json.loads(line) for line in given.rows.read_text().splitlines()]
    if given.settings:
        rows = predicted_anew(rows, json.loads(given.settings.read_text())["servers"])
    if given.csv:
        csv.writer(sys.stdout, lineterminator="\n").writerows(for_tests(rows))
    else:
        print("\n".join(tables(rows)))


def predicted_anew(rows: Sequence[Row], servers: Sequence[Row]) -> list[Row]:
    """The rows with the predictions of other settings; those that these lack are left out."""
    found = {(one["engine"], one["name"]): one["predicted_mib"] for one in servers}
    named = [(row, (row["engine"], row["name"])) for row in rows]
    return [{**row, "predicted_mib": found[name]} for row, name in named if name in found]


def for_tests(rows: Sequence[Row]) -> list[list[str | int]]:
    """MiB that servers held, as Corral builds them: without NCCL; the first of each setting."""
    found: list[list[str | int]] = [["engine", "setting", "gpu0_mib", "gpu1_mib"]]
    for row in rows:
        if row["round"] == 1 and not row["nccl"] and held(row):
            found.append([row["engine"], row["name"], *held(row), *[0] * (2 - row["gpus"])])
    return found


def held(row: Row) -> list[int]:
    """After its prompts; of a server that ended at its answer, the most that it held before."""
    found: list[int] = row.get("held_mib") or row.get("most_mib") or []
    return found if any(found) else []


def tables(rows: Sequence[Row]) -> list[str]:
    """Memory of every setting, the largest error, and tokens/s where it was measured in turns."""
    latest = {(row["engine"], row["name"], row["round"]): row for row in rows}
    rows = list(latest.values())
    memory = [line(row) for row in rows if row["round"] == 1]
    head = [
        "| engine | setting | placement | predicted MiB | held MiB | error |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    found = [(error, row) for row in rows if not row["nccl"] for error in errors(row)]
    last = []
    if found:
        error, row = max(found, key=lambda pair: abs(pair[0]))
        last = ["", f"Largest error {error:+.1f}%: {row['engine']}, {row['name']}."]
    return [*head, *memory, *last, "", *_speeds(rows)]


def errors(row: Row) -> list[float]:
    """Percent by which the prediction is above what was held, of each GPU."""
    pairs = zip(row["predicted_mib"], held(row), strict=False)
    return [100 * (predicted / mib - 1) for predicted, mib in pairs if mib]


def line(row: Row) -> str:
    """One row of Markdown."""
    placement = row["placement"].replace("|", r"\|")
    start = f"| {row['engine']} | {row['name']} | {placement} |"
    predicted = _joined(row["predicted_mib"])
    why = f"failed: {_short(row['error'])}" if "error" in row else ""
    if not held(row):
        return f"{start} {predicted} | {why} | |"
    listed = ", ".join(f"{error:+.1f}%" for error in errors(row))
    shown = ", then ".join(filter(None, [_joined(held(row)), why]))
    return f"{start} {predicted} | {shown} | {listed} |"


def _speeds(rows: Sequence[Row]) -> list[str]:
    head = [
        "| engine | setting | prompt | answer |",
        "| --- | --- | ---: | ---: |",
    ]
    names = dict.fromkeys((row["engine"], row["name"]) for row in rows if row["quiet"])
    lines = []
    for engine, name in names:
        own = [row for row in rows if (row["engine"], row["name"]) == (engine, name)]
        pairs = [pair for row in own for pair in row.get("speeds", ())]
        if pairs:
            prompt, answer = zip(*pairs, strict=True)
            lines.append(f"| {engine} | {name} | {_speed(prompt)} | {_speed(answer)} |")
    return [*head, *lines] if lines else []


def _speed(speeds: Sequence[float]) -> str:
    middle = statistics.median(speeds)
    return f"{middle:.1f} ({min(speeds):.1f}-{max(speeds):.1f})"


def _joined(numbers: Sequence[int]) -> str:
    return " + ".join(str(number) for number in numbers)


def _short(text: str) -> str:
    return " ".join(text.split())[-160:].replace("|", "/")


if __name__ == "__main__":
    main()
