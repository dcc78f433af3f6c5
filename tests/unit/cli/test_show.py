"""`corral show` and `history`: as text for people, and as a document for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.odd_host import Answer
from tests.unit.cli.test_cli import Corral, corral
from tests.unit.odd_fleet import OddFleet, good, odd_fleet, odd_hosts

pytestmark = pytest.mark.slow

__all__ = ["corral"]


@pytest.fixture
def fleet(corral: Corral, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OddFleet:
    return odd_fleet(corral, odd_hosts(tmp_path / "hosts", monkeypatch))


@pytest.mark.parametrize(("more", "log"), [((), ""), (("--log",), "well")])
def test_a_program_gets_the_report_with_its_changes(
    fleet: OddFleet, more: tuple[str, ...], log: str
) -> None:
    said = fleet("show", "well/chat", "--json", *more)
    assert said.code == 0, said.err
    (shown,) = json.loads(said.out)
    (kept,) = json.loads(fleet("history", "well", "--json").out)
    assert shown["report"] == kept | {"log": log}
    assert shown["changes"][0].startswith("well -> ")


def test_a_person_gets_its_gate(fleet: OddFleet) -> None:
    said = fleet("show", "well/chat")
    assert (said.code, "gate" in said.out, "phases: well 1.0 s" in said.out) == (0, True, True)


def test_a_history_without_rows_is_no_table(fleet: OddFleet) -> None:
    fleet.hosts.says("odd", {**good(fleet.plan("odd")), " history": Answer(b"[]")})
    said = fleet("history", "odd")
    assert (said.code, said.out, said.err) == (0, "nothing was activated here yet\n", "")
    fleet.hosts.says("odd", {" history": Answer(err=b"gone", code=255)})
    said = fleet("history", "odd")
    assert (said.code, said.out) == (1, "")
    assert "odd" in said.err
