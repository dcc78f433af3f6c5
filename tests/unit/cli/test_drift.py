"""`corral drift`: rows of hosts with their names, JSON, and the exit code."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from corral.cli import drift, main
from corral.errors import CorralError
from corral.host.answers import DRIFT
from corral.inventory.hosts import Host
from tests.samples import EXAMPLES

pytestmark = pytest.mark.slow

ROW = {
    "where": "chat", "planned": "generation one", "found": "it does not run",
    "next_step": "`corral verify HOST/chat`, then deploy HOST again",
}  # fmt: skip
SITE = 'servers = [(name, {"ssh_hostname": "10.0.0.1"}) for name in ("node-1", "node-2")]\n'
Answers = dict[str, list[dict[str, str]] | CorralError]


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answers:
    """What hosts answer, in a checkout with one inventory."""
    for folder in ("catalog", "templates"):
        shutil.copytree(EXAMPLES / folder, tmp_path / folder)
    shutil.copy(EXAMPLES / "deploy.py", tmp_path)
    (tmp_path / "inventories").mkdir()
    (tmp_path / "inventories" / "site.py").write_text(SITE)
    monkeypatch.chdir(tmp_path)
    found: Answers = {"node-1": [], "node-2": []}

    class Helper:
        def __init__(self, host: Host) -> None:
            self.host = host

        def ask(self, command: list[str], _: Any, document: str) -> Any:
            assert command == ["drift"]
            assert json.loads(document)["paths"]["state"] == "/var/lib/corral"
            answer = found[self.host.name]
            if isinstance(answer, CorralError):
                raise answer
            return DRIFT.validate_python(answer)

    monkeypatch.setattr(drift, "travelling_helper", Helper)
    return found


def corral_drift(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["corral", "drift", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.usefixtures("answers")
def test_hosts_without_drift_say_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert corral_drift(monkeypatch) == 0
    assert capsys.readouterr().out == "no drift\n"


def test_a_row_names_its_host_in_the_next_step(
    answers: Answers, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers["node-2"] = [ROW]
    assert corral_drift(monkeypatch, "--json") == 2
    document = json.loads(capsys.readouterr().out)
    assert document["node-1"] == []
    (row,) = document["node-2"]
    assert row["next_step"] == "`corral verify node-2/chat`, then deploy node-2 again"
    assert corral_drift(monkeypatch, "node-1") == 0
    assert corral_drift(monkeypatch, "node-2") == 2
    assert "it does not run" in capsys.readouterr().out


def test_a_host_that_does_not_answer_is_no_host_without_drift(
    answers: Answers, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers["node-1"] = CorralError("node-1", "does not answer", "check its network")
    answers["node-2"] = [ROW]
    assert corral_drift(monkeypatch) == 1
    said = capsys.readouterr()
    assert "node-1: does not answer. Next: check its network" in said.err
    assert "it does not run" in said.out
    assert corral_drift(monkeypatch, "--json") == 1
    assert json.loads(capsys.readouterr().out)["node-1"] == "does not answer"
