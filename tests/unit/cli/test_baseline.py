"""`corral baseline`, and the table of a gate's rows."""

from __future__ import annotations

import io
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from corral.cli.reach import Target
from corral.cli.views.instances import gate_table
from corral.errors import CorralError
from corral.host.activation_report import Row
from corral.host.reading import read_answer
from corral.inventory.hosts import Host, Inventory
from tests.samples import CHAT, LONG, host
from tests.unit.fake_client import travelling

KEPT = {
    "profile": "chat", "gpus": [0, 1], "lengths": [512], "generated_tokens": 64,
    "samples": {"prompt at 512": [990.0, 1010.0], "generation at 512": [50.0, 50.0, 50.0]},
    "generation": "00ff", "at": "2026-11-20T10:00:00Z",
}  # fmt: skip
ROWS = [
    {"instance": "chat", "baseline": KEPT, "problem": ""},
    {"instance": "long", "baseline": None, "problem": ""},
]

module = import_module("corral.cli.baseline")


def run(monkeypatch: pytest.MonkeyPatch, answer: Any, *words: str) -> tuple[Result, list[str]]:
    """The command over one host, whose helper gives ``answer``; and what the helper was asked."""
    asked = []

    def call(_: Host, command: str, plan_json: str, shape: Any) -> Any:
        names = [instance["name"] for instance in json.loads(plan_json)["instances"]]
        asked.append(f"{command} {' '.join(names)}")
        if isinstance(answer, Exception):
            raise answer
        return read_answer(shape, json.dumps(answer))

    found = Target(host(CHAT, LONG), ("chat", "long"), Inventory(path=Path("x.py"), hosts=()))
    monkeypatch.setattr(module, "reach", lambda *_: [found])
    monkeypatch.setattr(module, "travelling_helper", travelling(call))
    return CliRunner().invoke(module.baseline, ["lab-1", *words]), asked


def test_it_is_shown_with_its_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    done, asked = run(monkeypatch, ROWS)
    assert asked == ["baselines chat long"]
    assert done.exit_code == 0
    assert "1000.0 prompt at 512 (2 runs, spread 1.4%)" in done.output
    assert "50.0 generation at 512 (3 runs, spread 0.0%)" in done.output
    assert "2026-11-20T10:00:00Z" in done.output
    assert "none" in done.output.splitlines()[-1]


def test_a_damaged_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"instance": "chat", "baseline": None, "problem": "baseline.json is damaged"}
    done, _ = run(monkeypatch, [row])
    assert done.exit_code == 1
    assert "baseline.json is damaged" in done.output


def test_it_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    done, asked = run(monkeypatch, {"forgotten": ["chat"]}, "--forget")
    assert asked == ["forget chat long"]
    assert done.exit_code == 0
    assert done.output == "lab-1/chat: forgotten\nlab-1/long: there was none\n"


@pytest.mark.parametrize("words", [(), ("--forget",)])
def test_a_host_that_is_away_is_told(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    done, _ = run(monkeypatch, CorralError("lab-1", "no route", "switch it on"), *words)
    assert done.exit_code == 1
    assert "lab-1: no route" in done.output


def test_programs_get_it_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    done, _ = run(monkeypatch, ROWS, "--json")
    assert json.loads(done.output) == {"lab-1": ROWS}


def test_a_gate_is_a_table_of_its_parts() -> None:
    rows = [
        Row(part="ready", ok=True, figure="3.2 s", limit="300 s", detail=""),
        Row(part="golden", ok=False, figure="0 of 1", limit="1 of 1", detail="said '[/] :cat:'"),
        Row(part="vram", ok=None, figure="", limit="", detail="not asked"),
    ]
    out = io.StringIO()
    Console(file=out, width=100, emoji=False).print(gate_table(rows))
    lines = [line.split() for line in out.getvalue().splitlines()]
    assert lines[0] == ["part", "figure", "limit", "detail"]
    assert lines[1] == ["ready", "ok", "3.2", "s", "300", "s"]
    assert lines[2][:2] == ["golden", "FAILED"]
    assert " ".join(lines[2][2:]) == "0 of 1 1 of 1 said '[/] :cat:'"
    assert lines[3] == ["vram", "-", "not", "asked"]
