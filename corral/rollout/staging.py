"""Staging: pyinfra puts everything on the hosts, then the state of each host is checked."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from corral_shared.text import printable

from corral.drift import unstaged, waiting
from corral.errors import CorralError
from corral.files import writing
from corral.host.answers import STATE
from corral.host.state import HostState
from corral.inventory.hosts import Host
from corral.plan.host import HostPlan
from corral.plan.instance import InstancePlan
from corral.plan.key_digest import state_question
from corral.project import project_root
from corral.remote.client import travelling_helper
from corral.remote.run import on_all
from corral.store.api_keys import KeyFile, LostKeysError

KeyOf = Callable[[Host, str], KeyFile]

_FREE_SPACE = (
    "free disk space there, or name another folder with --state, then run the same command again"
)


@dataclass(frozen=True)
class Member:
    """A host of the rollout with its plan, and its state after staging.

    + problem: why it is not staged, or empty; + waiting: instances that do not serve their plan
    """

    host: Host
    plan: HostPlan
    state: HostState
    problem: str = ""
    waiting: tuple[InstancePlan, ...] = ()


def run_pyinfra(
    inventory: Path,
    only: Sequence[str],
    log: Path,
    print_line: Callable[[str], None],
    rollout: str | None = None,
) -> int:
    """Run the stages that touch no service; their output goes to ``print_line`` and to ``log``.

    + rollout: id of the rollout that holds the hosts' locks, if any
    Returns pyinfra's exit code, which is not sufficient: it is 0 also where no host was reached.
    Raises CorralError where ``log`` cannot be written.
    """
    limits = [argument for name in only for argument in ("--limit", name)]
    command = [sys.executable, "-m", "pyinfra", str(inventory.resolve()), "deploy.py", "-y"]
    own = ["--data", f"rollout={rollout}"] if rollout else []
    # Open the log before anything starts, so that a failure is reported now.
    with writing(log, next_step=_FREE_SPACE):
        file = log.open("ab", buffering=0)
    process = subprocess.Popen(
        [*command, "--data", "stage_only=true", *own, *limits],
        cwd=project_root(), env={**os.environ, "PYINFRA_PROGRESS": "off"},
        text=True, errors="replace", stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    with file:
        for line in process.stdout or ():
            text = printable(line)
            # A full disk loses a line of the log, never the work.
            with suppress(OSError):
                file.write(text.encode())
            print_line(text.rstrip("\n"))
    return process.wait()


def look(hosts: Sequence[tuple[Host, HostPlan]], key_of: KeyOf) -> list[Member]:
    """Fetch the state of every host; a host that does not answer is a member with a problem."""
    return on_all(lambda pair: _member(*pair, key_of), hosts)


def _member(host: Host, plan: HostPlan, key_of: KeyOf) -> Member:
    try:
        keys = {i.name: key_of(host, i.name).digest for i in plan.instances}
        state = travelling_helper(host).ask(["state"], STATE, state_question(plan))
    except LostKeysError as error:
        return Member(host, plan, HostState(), f"{error.what}: {error.next_step}")
    except CorralError as error:
        return Member(host, plan, HostState(), error.what)
    missing = _missing(plan, state, keys)
    return Member(host, plan, state, missing, waiting(plan, state, keys))


def _missing(plan: HostPlan, state: HostState, keys: Mapping[str, str]) -> str:
    found = unstaged(plan, state, keys)
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return "; ".join(found[:3]) + more


def refuse_unstaged(members: Sequence[Member], log: Path) -> None:
    """Raises CorralError naming every host that is not staged, and why."""
    failed = [member for member in members if member.problem]
    if not failed:
        return
    lines = "\n".join(f"  {member.host.name}: {member.problem}" for member in failed)
    raise CorralError(
        "staging",
        f"{len(failed)} of {len(members)} hosts are not staged; no service was touched\n{lines}",
        f"see {log}, fix that and run the same command again, or skip them with --without-failed",
    )
