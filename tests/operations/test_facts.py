"""Facts: the command that they send, and how they read good, missing and damaged answers."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest
from pyinfra.api.exceptions import FactProcessError

from corral.host.state import HostState
from corral.remote.helper_archive import BOOTSTRAP, encoded
from facts.gpu import Gpus
from facts.host import State
from facts.instance import Checks
from tests.samples import CHAT, ROOT, bare, plan
from tests.unit.helper_modules import program

PLANNED = plan(CHAT)


def sent() -> str:
    command = State().command(bootstrap=BOOTSTRAP)
    return str(command.get_raw_value())


def test_the_state_of_a_host_is_asked_for_in_one_command() -> None:
    arguments = shlex.split(sent())
    assert arguments[arguments.index("state") + 1] == ";"
    assert BOOTSTRAP in arguments


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


ODD = [["null"], ["[" * 100_000], ["7"], ['"\x1b[2J"'], ['{"\x1b[2J": 1}'], ['{"gpus": 1e999}']]


@pytest.mark.parametrize("output", ODD)
@pytest.mark.parametrize("fact", [State, Gpus, Checks])
def test_an_odd_answer_fails_the_host_alone_in_printable_words(
    fact: type[State | Gpus | Checks], output: list[str]
) -> None:
    with pytest.raises(FactProcessError, match="not readable") as caught:
        fact().process(output)
    assert str(caught.value).isprintable()


def test_what_start_up_files_say_first_is_no_part_of_a_state() -> None:
    state = bare(PLANNED)
    assert State().process(["Welcome!", "{", state.model_dump_json()]) == state


def test_a_long_plan_travels_on_standard_input() -> None:
    """Run as on a pyinfra host, with the helper in the first line."""
    document = json.loads(PLANNED.to_helper())
    document["instances"][0]["gate"]["golden"] = [{"prompt": "x" * 300_000}]
    done = subprocess.run(
        ["/bin/sh", "-c", sent()],
        input=f"{encoded(ROOT / 'files' / 'corral_host')}\n{json.dumps(document)}\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert State().process(done.stdout.splitlines()).releases == {PLANNED.releases[0].key: False}


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


def as_who(tmp_path: Path, become: tuple[str, ...], **programs: str) -> HostState:
    """The state that the fact returns with these programs first in PATH."""
    for name, script in programs.items():
        program(tmp_path / "bin", name, script)
    command = State().command(bootstrap=BOOTSTRAP, become=become).get_raw_value()
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        input=f"{encoded(ROOT / 'files' / 'corral_host')}\n{PLANNED.to_helper()}\n",
        env={"PATH": f"{tmp_path / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    # pyinfra asks for a password where a command fails with this line.
    assert "sudo: a password is required" not in done.stdout.splitlines()
    return State().process(done.stdout.splitlines())


SUDO = ("sudo", "-n", "--")
RUNS = '[ "$1 $2" = "-n --" ] && shift 2 && exec "$@"'
ROOT_IS = '[ "$1" = -u ] && echo 0'


def test_a_login_that_is_root_tells_its_state(tmp_path: Path) -> None:
    assert as_who(tmp_path, (), id=ROOT_IS).readable
    assert as_who(tmp_path, SUDO, id=ROOT_IS, sudo=f"echo sudo: unable to >&2; {RUNS}").readable


@pytest.mark.parametrize(
    ("become", "programs", "said"),
    [
        ((), {"id": "echo 1000"}, "1000"),
        (SUDO, {"sudo": "echo a lecture; echo 'sudo: a password is required' >&2; exit 1"},
         "sudo: a password is required"),
        (SUDO, {"id": "echo 1000", "sudo": RUNS}, "1000"),
        (("corral-no-such-program",), {}, "sh: 1: corral-no-such-program: not found"),
    ],
)  # fmt: skip
def test_a_login_that_is_not_root_tells_that_alone(
    tmp_path: Path, become: tuple[str, ...], programs: dict[str, str], said: str
) -> None:
    found = as_who(tmp_path, become, **programs)
    assert found == HostState(not_root=found.not_root)
    assert said.removeprefix("sh: 1: ") in found.not_root
