"""Requests of a gateway are counted from its log, each once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.helper_modules import helper_module

requests, textfile = helper_module("monitoring.requests"), helper_module("monitoring.textfile")
commands = helper_module("system.commands")

# A journal of lines; like journalctl's it ends with the cursor, or with 1 without a line.
JOURNALCTL = """#!/bin/sh
echo "$@" >> {folder}/asked
[ -e {folder}/fails ] && {{ echo "no journal" >&2; exit 1; }}
case "$*" in *--after-cursor=*) place="${{*##*--after-cursor=}}" ;; *) place=0 ;; esac
tail -n +$((place + 1)) {folder}/log
total=$(wc -l < {folder}/log)
[ "$total" -gt "$place" ] || exit 1
echo "-- cursor: $total"
"""


def line(times: str = "3/0/1/96/1500", status: str = "200", pool: str = "glm") -> str:
    return (
        f"10.0.0.9:4000 [30/Nov/2026:05:00:00.000] clients-{pool} {pool}/gpu-1_chat {times} "
        f'{status} 512 - - ---- 1/1/0/0/0 0/0 {{ops}} "POST /v1/chat/completions HTTP/1.1"'
    )


REFUSED = line("-1/-1/-1/-1/0", "401").replace("glm/gpu-1_chat", "clients-glm/<NOSRV>")
LEFT = line("5/0/1/-1/9000", "-1")


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/journalctl"
    program.write_text(JOURNALCTL.format(folder=tmp_path))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    gateway = tmp_path / "gateway"
    gateway.mkdir()
    (gateway / "current").symlink_to("0" * 16)

    def write(*lines: str) -> None:
        with (tmp_path / "log").open("a") as file:
            file.writelines(f"{one}\n" for one in lines)

    write()
    return write


def samples(folder: Path) -> list[str]:
    found = textfile.Textfile()
    paths = {"state": str(folder / "state"), "gateway": str(folder / "gateway")}
    requests.requests(found, paths)
    text: str = found.text()
    return text.splitlines()


def record(folder: Path) -> Path:
    return folder / "state/monitoring/requests.json"


def test_requests_are_counted_by_status_and_time(tmp_path: Path, log: Callable[..., None]) -> None:
    log("Proxy started.", line(), line("0/0/0/4000/4100", "500"), REFUSED, LEFT)
    found = samples(tmp_path)
    assert 'corral_gateway_requests_total{proxy="glm",code="200"} 1' in found
    assert 'corral_gateway_requests_total{proxy="glm",code="401"} 1' in found
    assert 'corral_gateway_requests_total{proxy="glm",code="none"} 1' in found
    first = [one for one in found if one.startswith("corral_gateway_first_byte_seconds")]
    assert first[0] == 'corral_gateway_first_byte_seconds_bucket{proxy="glm",le="0.1"} 1'
    assert 'corral_gateway_first_byte_seconds_bucket{proxy="glm",le="2.5"} 1' in first
    assert 'corral_gateway_first_byte_seconds_bucket{proxy="glm",le="5"} 2' in first
    assert first[-3:] == [
        'corral_gateway_first_byte_seconds_bucket{proxy="glm",le="+Inf"} 2',
        'corral_gateway_first_byte_seconds_sum{proxy="glm"} 4.1',
        'corral_gateway_first_byte_seconds_count{proxy="glm"} 2',
    ]
    assert 'corral_gateway_request_seconds_sum{proxy="glm"} 5.6' in found
    assert found.count("# TYPE corral_gateway_request_seconds histogram") == 1


def test_each_line_is_counted_once(tmp_path: Path, log: Callable[..., None]) -> None:
    assert samples(tmp_path) == []
    log(line(), line(pool="other"))
    for _ in range(2):
        assert 'corral_gateway_requests_total{proxy="glm",code="200"} 1' in samples(tmp_path)
    log(line())
    found = samples(tmp_path)
    assert 'corral_gateway_requests_total{proxy="glm",code="200"} 2' in found
    assert 'corral_gateway_requests_total{proxy="other",code="200"} 1' in found


def test_a_longer_gap_is_left_out_and_counters_go_on(
    tmp_path: Path, log: Callable[..., None]
) -> None:
    log(line())
    samples(tmp_path)
    document = json.loads(record(tmp_path).read_text())
    record(tmp_path).write_text(json.dumps({**document, "at": document["at"] - 3600}))
    samples(tmp_path)
    assert "--since=@" in (tmp_path / "asked").read_text().splitlines()[-1]


@pytest.mark.parametrize(
    "damage",
    [
        "{", "[]", '"x"', "null", '{"at": "x", "cursor": "", "pools": {}}',
        '{"at": 1, "cursor": "", "pools": []}',
        '{"at": 1, "cursor": "", "pools": {"glm": {"statuses": {}, "whole": {"counts": [1]}}}}',
        json.dumps({"at": 1, "cursor": "", "pools": {"glm": {
            "statuses": {}, **{one: {"counts": [1], "total": 1} for one in ("first_byte", "whole")}
        }}}),
    ],
)  # fmt: skip
def test_a_damaged_record_begins_anew(
    tmp_path: Path, log: Callable[..., None], damage: str
) -> None:
    log(line())
    samples(tmp_path)
    record(tmp_path).write_text(damage)
    assert 'corral_gateway_requests_total{proxy="glm",code="200"} 1' in samples(tmp_path)


def test_a_journal_that_fails_keeps_the_counts(tmp_path: Path, log: Callable[..., None]) -> None:
    log(line())
    samples(tmp_path)
    before = record(tmp_path).read_text()
    (tmp_path / "fails").touch()
    with pytest.raises(commands.HostError, match="no journal"):
        samples(tmp_path)
    assert record(tmp_path).read_text() == before


@pytest.mark.usefixtures("log")
def test_a_host_without_a_gateway_reads_no_log(tmp_path: Path) -> None:
    (tmp_path / "gateway/current").unlink()
    assert samples(tmp_path) == []
    assert not (tmp_path / "asked").exists()


def test_hostile_requests_are_no_lines_of_their_own(
    tmp_path: Path, log: Callable[..., None]
) -> None:
    spoofed = line().replace("/v1/chat/completions", "/ clients-evil x 1/1/1/1/1 200 1 - - ----")
    log(spoofed)
    assert not [one for one in samples(tmp_path) if "evil" in one]
