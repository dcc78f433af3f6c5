"""Following a job on a host to its end: success, failure with its log, a lost connection."""

from __future__ import annotations

import json
from typing import Any

import pytest
from paramiko import SSHException

from operations.job import follow
from tests.operations.fakes import asked, prepared

HELPER = "/lib/helper.pyz"
TAIL = ["[1/9] compiling", "error: no such header", "ninja: build stopped"]


def progress(**changes: Any) -> str:
    fields = {"running": False, "ok": True, "error": "", "offset": 10, "tail": TAIL}
    return json.dumps({**fields, **changes})


def poll(offset: int) -> str:
    return f"poll build {offset}"


def follow_to_the_end(answers: dict[str, Any]) -> tuple[bool, list[str]]:
    """The outcome, and the commands that the host received."""
    with prepared(answers) as host:
        good = follow(host.state, host, HELPER, "build")
        return good, asked(host)


def test_a_job_that_ended_well_is_good() -> None:
    assert follow_to_the_end({poll(0): progress()}) == (True, [f"python3 -I {HELPER} poll build 0"])


def test_a_running_job_is_asked_again_from_where_its_log_was() -> None:
    answers = {
        poll(0): progress(running=True, offset=7),
        poll(7): progress(running=True, offset=9, tail=[]),
        poll(9): progress(),
    }
    good, polls = follow_to_the_end(answers)
    assert good
    assert [command.split()[-1] for command in polls] == ["0", "7", "9"]


def test_progress_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="pyinfra")
    follow_to_the_end({poll(0): progress(running=True, offset=7), poll(7): progress()})
    assert "build: ninja: build stopped" in caplog.text


def test_a_failed_job_is_reported_with_the_tail_of_its_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", logger="pyinfra")
    good, _ = follow_to_the_end({poll(0): progress(ok=False, error="cmake failed\nwith code 1")})
    assert not good
    assert "build failed" in caplog.text
    assert all(line in caplog.text for line in TAIL)
    assert "cmake failed" in caplog.text


def test_a_job_that_ended_without_a_result_is_a_failure() -> None:
    good, _ = follow_to_the_end({poll(0): progress(ok=False, error="killed", tail=[])})
    assert not good


def test_a_poll_that_fails_is_a_failure_that_tells_what_to_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", logger="pyinfra")
    good, polls = follow_to_the_end({"poll": {"success": False}})
    assert not good
    assert len(polls) == 1
    assert "Next: run the same deploy again" in caplog.text


@pytest.mark.parametrize(
    "fault", [SSHException("session is not active"), EOFError(), ConnectionResetError(), OSError()]
)
def test_a_lost_connection_is_a_failure_that_tells_what_to_do(
    fault: Exception, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(*_: object, **__: object) -> None:
        raise fault

    caplog.set_level("INFO", logger="pyinfra")
    with prepared() as host:
        monkeypatch.setattr(host, "run_shell_command", lose)
        assert follow(host.state, host, HELPER, "build") is False
    assert "connection lost; build goes on there" in caplog.text
    assert "Next: run the same deploy again" in caplog.text
