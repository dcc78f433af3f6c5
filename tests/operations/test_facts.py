"""Facts: what they send, and what they make of a good, a missing and a damaged answer."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest
from pyinfra.api.exceptions import FactProcessError

from corral.helper import BOOTSTRAP, encoded
from corral.state import HostState
from facts.host import State
from facts.instance import Checks
from tests.samples import CHAT, ROOT, bare, plan

PLANNED = plan(CHAT)


def sent() -> str:
    command = State().command(plan_json=PLANNED.to_helper(), bootstrap=BOOTSTRAP)
    return str(command.get_raw_value())


def test_the_state_of_a_host_is_asked_for_in_one_command() -> None:
    words = shlex.split(sent())
    assert words[words.index("state") + 1] == PLANNED.to_helper()
    assert BOOTSTRAP in words


def test_a_host_without_python_says_so_itself(tmp_path: Path) -> None:
    (tmp_path / "cat").symlink_to("/bin/cat")
    done = subprocess.run(
        ["/bin/sh", "-c", sent()],
        input=encoded(ROOT / "files" / "corral_host"),
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    state = State().process(done.stdout.splitlines())
    assert state == HostState(missing_commands=("python3",))


def test_a_state_reads_back() -> None:
    state = bare(PLANNED)
    assert State().process(state.model_dump_json(indent=1).splitlines()) == state


@pytest.mark.parametrize("output", [[], ["Welcome!"], ["{"], ['{"surprise": 1}'], ["[]"]])
def test_a_damaged_state_fails_the_host_alone(output: list[str]) -> None:
    with pytest.raises(FactProcessError, match="not readable"):
        State().process(output)


def test_checks_read_back() -> None:
    row = {"instance": "chat", "check": "health", "ok": True, "detail": "200"}
    (check,) = Checks().process([json.dumps([row])])
    assert check.model_dump() == row


@pytest.mark.parametrize("output", [[], ["{"], ["[{}]"]])
def test_damaged_checks_fail_the_host_alone(output: list[str]) -> None:
    with pytest.raises(FactProcessError, match="not readable"):
        Checks().process(output)
