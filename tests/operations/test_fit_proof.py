"""The proof of fit on a host: what it is sent, and how its answers are handled."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pyinfra.api.command import FunctionCommand

from operations import fit
from tests.operations.fakes import asked, commands, prepared
from tests.samples import CHAT, LONG, plan

PLANNED = plan(CHAT, LONG)
HELPER = PLANNED.paths.helper
WAITING = PLANNED.instances[:1]
NEED = {"weights_mib": 30720, "kv_mib": 2048, "compute_mib": 900, "runtime_mib": 736}
TOOL = {"weights_mib": 30719, "kv_mib": 2047, "compute_mib": 1500}
ROW = {
    "tool_name": "llama-fit-params",
    "device": "GPU 0",
    "needs_mib": 34404,
    "there_mib": 40000,
    "counted": NEED,
    "tool": TOOL,
    "plan": NEED,
    "room": {"free": 40000, "own": 0, "taken": {}, "there": 40000, "strangers": []},
}


def proved(answer: Any) -> tuple[bool, list[str]]:
    """Whether the command succeeds with this answer of the helper, and what it sent."""
    reported = answer if isinstance(answer, dict) else json.dumps(answer)
    with prepared({" prove": reported}) as fake:
        (command,) = commands(fit.proof, PLANNED, waiting=WAITING)
        assert isinstance(command, FunctionCommand)
        done = command.function(fake.state, fake, *command.args, **command.kwargs)
        return bool(done), asked(fake)


def test_the_helper_gets_the_plan_and_who_waits() -> None:
    with prepared() as fake:
        (command,) = commands(fit.proof, PLANNED, waiting=WAITING)
        assert asked(fake) == []
    helper, document = command.args  # type: ignore[attr-defined]
    assert helper == HELPER
    assert document == {**json.loads(PLANNED.to_helper()), "waiting": ["chat"]}
    assert [one["name"] for one in document["instances"]] == ["chat", "long"]


def test_a_line_tells_each_device_that_fits(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="pyinfra")
    verdict = {"instance": "chat", "ok": True, "rows": [ROW], "notes": ["weights are mapped"]}
    assert proved([verdict]) == (True, [f"python3 -I {HELPER} prove"])
    assert "chat: GPU 0: 33.6 GiB needed, 39.1 GiB available" in caplog.text
    assert "llama-fit-params 30719 + 2047 + 1500, planned 30720 + 2048 + 900" in caplog.text
    assert "chat: weights are mapped" in caplog.text


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([{"instance": "chat", "ok": False, "message": "chat: too much\n  Next: less"}], "less"),
        ([{"instance": "long", "ok": True}], "chat: its fit was not proved"),
        ([], "chat: its fit was not proved"),
        ([{"surprise": 1}], "its answer is not readable"),
        ({"success": True}, "its answer is not readable"),
        ({"success": False}, "the proof was killed"),
        (
            {"success": False, "stderr": "the files of the proof cannot be written: disk full"},
            "disk full",
        ),
    ],
)
def test_anything_else_stops_the_host(
    answer: Any, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert proved(answer)[0] is False
    assert said in caplog.text


def test_a_lost_connection_tells_what_to_do(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(*_: object, **__: object) -> None:
        raise EOFError

    with prepared() as fake:
        monkeypatch.setattr(fake, "run_shell_command", lose)
        assert fit.prove(fake.state, fake, HELPER, {"waiting": ["chat"]}) is False
    assert "Next: run the same deploy again" in caplog.text
