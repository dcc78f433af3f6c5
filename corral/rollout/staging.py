"""Staging: pyinfra puts everything on the hosts, then each host is asked whether it is there."""

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
from corral.project import project_root
from corral.remote.client import travelling_helper
from corral.remote.run import on_all
from corral.store.api_keys import KeyFile, LostKeysError

KeyOf = Callable[[Host, str], KeyFile]

_ROOM = "make room there, or name another folder with --state, then ask again"


@dataclass(frozen=True)
class Member:
    """A host of the rollout with its plan, and what it says of itself once it is staged.

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
    say: Callable[[str], None],
    rollout: str | None = None,
) -> int:
    """Deploy all stages that touch no service; its output goes to ``say`` and to ``log``.

    + rollout: that holds the hosts, if one does
    Gives pyinfra's exit code, which says too little: 0 as well where no host was touched.
    Raises CorralError where ``log`` cannot be written.
    """
    limits = [word for name in only for word in ("--limit", name)]
    command = [sys.executable, "-m", "pyinfra", str(inventory.resolve()), "deploy.py", "-y"]
    own = ["--data", f"rollout={rollout}"] if rollout else []
    # Before anything is started: where no log can be is told now.
    with writing(log, next_step=_ROOM):
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
            # On a disk that fills up a line of the log is lost, never the work that it tells of.
            with suppress(OSError):
                file.write(text.encode())
            say(text.rstrip("\n"))
    return process.wait()


def look(hosts: Sequence[tuple[Host, HostPlan]], key_of: KeyOf) -> list[Member]:
    """Ask every host for its state; a host that cannot be asked is a member with a problem."""
    return on_all(lambda pair: _member(*pair, key_of), hosts)


def _member(host: Host, plan: HostPlan, key_of: KeyOf) -> Member:
    try:
        keys = {i.name: key_of(host, i.name).sha256 for i in plan.instances}
        state = travelling_helper(host).ask(["state"], STATE, plan.to_helper())
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
    left = [member for member in members if member.problem]
    if not left:
        return
    lines = "\n".join(f"  {member.host.name}: {member.problem}" for member in left)
    raise CorralError(
        "staging",
        f"{len(left)} of {len(members)} hosts are not staged; no service was touched\n{lines}",
        f"see {log}, fix that and ask again, or go on without them with --without-failed",
    )
