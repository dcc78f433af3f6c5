"""The helper's job `bench` on a host: start it or join it, follow it to its answer."""

from __future__ import annotations

import getpass
import hashlib
import json
import platform
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from corral.errors import CorralError
from corral.helper import archive
from corral.inventory import Host
from corral.plan import HostPlan
from corral.project import helper_package, project_root
from corral.remote import call_helper, ssh_command
from corral.state import HostState

_ENDED_ALONE = "it ended without a result"
_AGAIN = "ask again with the same command"

Say = Callable[[str], None]


def refuse_other_helper(host: Host, plan: HostPlan) -> None:
    """Jobs run the helper that is installed. Raises CorralError when it is not this checkout's."""
    state = HostState.model_validate(call_helper(host, "state", plan.to_helper()))
    ours = hashlib.sha256(archive(helper_package(project_root()))).hexdigest()
    if state.helper_sha256 != ours:
        what = "the helper there is another version's" if state.helper_sha256 else "is not deployed"
        raise CorralError(host.name, what, "deploy the host, then ask again")


def start(host: Host, helper: str, name: str, spec: dict[str, Any]) -> str | None:
    """Start a job; gives who started it when the same one runs already. Raises CorralError."""
    by = f"{getpass.getuser()} on {platform.node()}"
    job = {"kind": "bench", "spec": spec, "by": by, "at": datetime.now(UTC).isoformat()}
    answer = _ask(host, helper, ["start", name], json.dumps(job))
    return str(answer.get("by") or "somebody") if answer["joined"] else None


def poll(host: Host, helper: str, name: str, offset: int) -> dict[str, Any]:
    """News of a job, after a little while. Raises CorralError."""
    news: dict[str, Any] = _ask(host, helper, ["poll", name, str(offset)], "")
    return news


def follow(host: Host, helper: str, name: str, *, where: str, say: Say) -> dict[str, Any]:
    """Wait for the answer of a job and tell its progress. Raises CorralError when it failed."""
    offset, last = 0, ""
    while True:
        news = poll(host, helper, name, offset)
        if not news["running"]:
            return _answer(news, where)
        offset, line = news["offset"], _progress(news["tail"])
        if line and line != last:
            say(line)
            last = line


def _progress(tail: list[str]) -> str:
    """The last line for people; results themselves are for the end."""
    return next((line[:100] for line in reversed(tail) if line and not line.startswith("{")), "")


def _answer(news: dict[str, Any], where: str) -> dict[str, Any]:
    if news["ok"]:
        answer: dict[str, Any] = news["answer"]
        return answer
    reason = str(news["error"])
    if reason.startswith(_ENDED_ALONE):
        raise CorralError(where, f"{_ENDED_ALONE} (killed, or a reboot)", _AGAIN)
    raise _error(where, reason)


def _ask(host: Host, helper: str, words: list[str], text: str) -> Any:
    command = ssh_command(host, ["python3", helper, *words])
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode == 255:
        what = f"connection lost ({done.stderr.strip()}); a benchmark that runs there goes on"
        raise CorralError(host.name, what, f"{_AGAIN}: it joins, or fetches the result")
    if done.returncode != 0:
        raise _error(host.name, done.stderr.strip() or f"exit code {done.returncode}")
    return json.loads(done.stdout)


def _error(where: str, text: str) -> CorralError:
    """The helper says what comes next in its own last sentence, if it does."""
    what, _, next_step = text.partition(" Next: ")
    what = what.removeprefix(f"{where}: ").removeprefix(f"{where} ")
    next_step, _, more = next_step.partition("\n")
    return CorralError(where, f"{what}\n{more}".strip(), next_step or f"mend that, then {_AGAIN}")
