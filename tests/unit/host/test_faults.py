"""An error of a host comes in parts; older helpers, shells and Python are read as text."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from corral.errors import CorralError
from corral.host.answers import ANYTHING, ActivationForecast, JobStatus
from corral.host.fault import Fault, fault_of_text, read_fault
from corral.remote.client import travelling_helper
from lab.odd_host import Answer, OddHosts
from tests.samples import CHAT, ROOT, host
from tests.unit.helper_modules import helper_module
from tests.unit.odd_fleet import odd_hosts

PARTS = {"where": "", "what": "the disk is full", "next_step": "free space there"}
LINE = json.dumps({"fault": PARTS})


def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer) -> CorralError:
    hosts: OddHosts = odd_hosts(tmp_path / "odd", monkeypatch)
    hosts.says("lab-1", answer)
    monkeypatch.setattr("corral.remote.client.project_root", lambda: ROOT)
    with pytest.raises(CorralError) as caught:
        travelling_helper(host(CHAT)).ask(["check"], ANYTHING, "{}")
    return caught.value


def test_the_parts_of_a_fault_arrive_as_they_were_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever words it is made of."""
    parts = {**PARTS, "what": "a prompt said. Next: please"}
    out = f"Welcome\n{json.dumps({'fault': parts})}\n".encode()
    error = asked(tmp_path, monkeypatch, Answer(out=out, err=b"as text", code=1))
    assert (error.where, error.what, error.next_step) == (
        "lab-1", "a prompt said. Next: please", "free space there",
    )  # fmt: skip


def test_a_helper_of_an_earlier_version_is_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = Answer(err=b"lab-1: the disk is full. Next: free space there\n", code=1)
    error = asked(tmp_path, monkeypatch, answer)
    assert (error.what, error.next_step) == ("the disk is full", "free space there")


@pytest.mark.parametrize("fault", ["7", "null", "[]", '{"next_step": "x"}', '{"what": 7}', "{"])
def test_parts_that_are_none_leave_the_text(fault: str) -> None:
    assert read_fault(f'{{"fault": {fault}}}', "it broke").what == "it broke"


def test_what_python_says_at_its_end_is_its_last_line() -> None:
    text = "Traceback (most recent call last):\n  File x\nKeyError: 'port'"
    assert fault_of_text(text) == Fault(what="its helper failed: KeyError: 'port'")


def test_a_fault_without_a_next_step_takes_that_of_who_asked() -> None:
    fault = Fault(what="lab-1/chat is down")
    assert fault.error("lab-1/chat", "start it").next_step == "start it"
    assert fault.error("lab-1/chat").what == "is down"


def test_news_of_a_failed_job_are_read_in_parts_and_as_text() -> None:
    news = JobStatus(running=False, ok=False, error="full. Next: free it", offset=0, tail=())
    assert news.wrong == Fault(what="full", next_step="free it")
    assert news.model_copy(update={"fault": Fault(**PARTS)}).wrong.what == "the disk is full"


def test_what_stands_against_an_activation_is_shown_without_next_steps() -> None:
    texts = ("no room. Next: stop one", "no port")
    assert ActivationForecast(how=None, obstacles=texts).obstacle == "no room"
    assert (
        ActivationForecast(how=None, obstacles=texts, faults=(Fault(**PARTS),)).obstacle
        == PARTS["what"]
    )


def test_the_helper_gives_the_parts_beside_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    main = helper_module("__main__")
    assert main.main(["surprise"]) == 1
    said = capsys.readouterr()
    assert "unknown command surprise" in said.err
    assert "unknown command surprise" in read_fault(said.out, "").what


def test_no_fault_of_the_helper_hides_its_next_step_in_a_text() -> None:
    """Give it as the second argument: HostError(what, next_step)."""
    found = []
    for path in sorted((ROOT / "files" / "corral_host").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(getattr(node, "func", None), "id", "")
            if isinstance(node, ast.Call) and name.endswith("Error") and "Next: " in text_of(node):
                found.append(f"{path.name}:{node.lineno}")
    assert found == []


def text_of(call: ast.Call) -> str:
    parts = [part for one in call.args for part in ast.walk(one)]
    return "".join(str(part.value) for part in parts if isinstance(part, ast.Constant))


def test_no_text_is_cut_at_its_next_step() -> None:
    sources = [
        path
        for folder in ("corral", "operations", "facts", "deploys", "lab", "files")
        for path in (ROOT / folder).rglob("*.py")
    ]
    cut = [path for path in sources if 'partition("Next' in path.read_text().replace('(" ', '("')]
    assert cut == []
