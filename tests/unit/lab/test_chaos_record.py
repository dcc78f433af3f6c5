"""The hard day's record: one commit alone, gone on with in sittings, printed as tables."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from corral.errors import CorralError
from lab.alerts.timeline import Seen
from lab.chaos.controls import Damage
from lab.chaos.page import headline
from lab.chaos.record import Record, Setting, commit_of
from lab.chaos.second_day import ChoreRow
from lab.chaos.table import Lines, markdown, tables

SETTING = Setting("abc", "rollout", 3, gateway=True, alerts=False)
ROW = ChoreRow(
    name="weights",
    change="weights",
    how="gateway | alone",
    commands=("rollout: 0", "revert: 0", "rollout: 0"),
    asked=40,
    failed=0,
    failures={},
    longest_gap_seconds=0.4,
    verified=("both green", "both green"),
    wrong=(),
    alerts=(),
)
SEEN = Damage("control-dies", "unit exits", 9, 8, {"refused": 8}, "8 of 9 requests failed")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "chaos.json"
    Record.begin(path, SETTING).add("chores", ROW)
    return path


def document(file: Path) -> Any:
    return json.loads(file.read_text())


def test_a_sitting_goes_on_where_the_last_one_ended(file: Path) -> None:
    record = Record.resume(file, SETTING)
    assert record.has("chores", "weights")
    assert not record.has("scenarios", "weights")
    record.add("controls", SEEN)
    found = document(file)
    assert (len(found["sittings"]), len(found["chores"]), len(found["controls"])) == (2, 1, 1)
    assert record.held


@pytest.mark.parametrize("other", [{"commit": "abd"}, {"by": "deploy"}, {"gateway": False}])
def test_rows_of_another_commit_or_setting_are_not_mixed_in(
    file: Path, other: dict[str, Any]
) -> None:
    before = file.read_text()
    with pytest.raises(CorralError, match="check that commit out"):
        Record.resume(file, replace(SETTING, **other))
    assert file.read_text() == before


def test_what_was_not_committed_is_not_gone_on_with(tmp_path: Path) -> None:
    setting = replace(SETTING, commit="abc and edits")
    Record.begin(tmp_path / "chaos.json", setting).add("chores", ROW)
    with pytest.raises(CorralError, match="uncommitted"):
        Record.resume(tmp_path / "chaos.json", setting)


@pytest.mark.parametrize("text", [None, "{"])
def test_a_record_that_is_not_there_cannot_be_gone_on_with(
    tmp_path: Path, text: str | None
) -> None:
    if text is not None:
        (tmp_path / "chaos.json").write_text(text)
    with pytest.raises(CorralError, match="cannot be continued"):
        Record.resume(tmp_path / "chaos.json", SETTING)


def test_a_broken_rule_and_a_control_that_saw_nothing_are_no_success(file: Path) -> None:
    record = Record.resume(file, SETTING)
    record.add("controls", replace(SEEN, words=""))
    assert not record.held
    other = Record.begin(file, SETTING)
    other.add("chores", replace(ROW, wrong=("2 requests failed",)))
    assert not other.held


def test_an_edit_makes_another_commit_of_it(tmp_path: Path) -> None:
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        own = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", *own, *words], cwd=tmp_path, check=True)
    clean = commit_of(tmp_path)
    (tmp_path / "new").write_text("")
    assert commit_of(tmp_path) == f"{clean} and edits"


def test_a_table_says_how_often_and_stays_one(file: Path) -> None:
    (lines,) = tables(document(file))
    assert lines.cells[0][2:5] == ("rollout: 0 (2x), revert: 0", "0 of 40", "both green (2x)")
    head, _, row = markdown(lines).splitlines()
    assert row.startswith("| weights | gateway \\| alone | rollout: 0 (2x), revert: 0 | 0 of 40 |")
    assert head.count("|") == row.replace("\\|", "").count("|")
    assert markdown(Lines(("a",), (("b\nc",),))).splitlines()[-1] == "| b c |"


def test_a_page_says_what_is_missing_and_what_was_broken(file: Path) -> None:
    Record.resume(file, SETTING).add("chores", replace(ROW, name="gate", wrong=("no",)))
    told = headline(document(file))
    assert "Commit abc, 3 servers behind a gateway" in told
    assert re.search(r"^2 of \d+ played; not played: address-", told, re.MULTILINE)
    assert "Rule broken by: gate." in told


def test_alerts_are_a_column_where_the_fleet_was_watched(tmp_path: Path) -> None:
    path = tmp_path / "chaos.json"
    alerts = (Seen("CorralDown", 4.0, 28.4, 60.0), Seen("CorralQueue", 7.0, None, 9.0))
    Record.begin(path, replace(SETTING, alerts=True)).add("chores", replace(ROW, alerts=alerts))
    (lines,) = tables(document(path))
    assert lines.heads[-1] == "alert: pending, fires"
    assert lines.cells[0][-1] == "CorralDown 4 s, 28 s, CorralQueue 7 s"
    assert len(lines.heads) == len(lines.cells[0])
    assert "Watched: every duration of rules and scrapes 1/5." in headline(document(path))
