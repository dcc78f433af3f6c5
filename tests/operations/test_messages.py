"""Output of hosts in a deploy's lines is made printable; pyinfra's own colours stay."""

from __future__ import annotations

import json
import re

import pytest
from pyinfra import logger
from pyinfra.api.util import print_host_combined_output
from pyinfra.connectors.util import CommandOutput, OutputLine

from operations.messages import complain, guard_log
from tests.operations.fakes import prepared
from tests.operations.fleet import ENDED, STATE, Fleet, bare_host, failed, settled_host

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b2J\u202e"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")
COLOURS = re.compile("\x1b\\[[0-9;]*m")


def assert_text(text: str) -> None:
    assert RAW.findall(COLOURS.sub("", text)) == []
    assert "owned" in text


def test_what_a_job_says_is_text(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="pyinfra")
    progress = json.dumps({**ENDED, "ok": False, "error": EVIL, "tail": [EVIL]})
    fleet.add("odd", bare_host(fleet, "odd"), **{"poll fetch": progress})
    fleet.add("good", settled_host(fleet, "good"))
    assert failed(fleet.deploy()) == {"odd"}
    assert_text("\n".join(caplog.messages))


@pytest.mark.parametrize("answer", [json.dumps(EVIL), json.dumps({EVIL: 1})])
def test_a_state_that_is_none_is_told_as_text(
    fleet: Fleet, caplog: pytest.LogCaptureFixture, answer: str
) -> None:
    fleet.add("odd", settled_host(fleet, "odd"))
    fleet.hosts["odd"]["fake_responses"][STATE] = answer
    fleet.add("good", settled_host(fleet, "good"))
    assert failed(fleet.deploy()) == {"odd"}
    assert RAW.findall(COLOURS.sub("", "\n".join(caplog.messages))) == []


def test_what_pyinfra_repeats_of_a_failed_command_is_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    guard_log()
    guard_log()
    assert len([one for one in logger.filters if type(one).__name__ == "_Printable"]) == 1
    lines = [OutputLine("stdout", f"{EVIL} 100%"), OutputLine("stderr", EVIL)]
    with prepared() as host:
        print_host_combined_output(host, CommandOutput(lines))
    assert_text("\n".join(caplog.messages))
    lines = [OutputLine("stdout", '{"fault": {"what": "for programs"}}')]
    with prepared() as host:
        print_host_combined_output(host, CommandOutput(lines))
    assert "for programs" not in "\n".join(caplog.messages)
    logger.error("\x1b[31mred\x1b[0m")
    assert "\x1b[31mred\x1b[0m" in "\n".join(caplog.messages)


def test_no_line_is_a_document(caplog: pytest.LogCaptureFixture) -> None:
    guard_log()
    document = json.dumps({"instances": [{"name": "chat"}] * 600})
    lines = [OutputLine("stderr", f"PermissionError: {document}"), OutputLine("stdout", document)]
    with prepared() as host:
        print_host_combined_output(host, CommandOutput(lines))
        complain(document, host)
    reported = [one for one in caplog.messages if '"instances"' in one]
    assert max(map(len, reported)) < 400
    assert [one.endswith(" characters)") for one in reported] == [True] * 3
