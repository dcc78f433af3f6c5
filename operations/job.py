"""Long work on a host: start it detached, follow it with short questions."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from paramiko import SSHException
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS
from pyinfra.api.command import FunctionCommand, QuoteString, StringCommand
from pyinfra.api.host import Host
from pyinfra.api.state import State

from corral.errors import CorralError
from corral.host.answers import NEWS, JobNews
from corral.host.reading import UnreadableError, read_answer, unreadable
from corral.inventory.hosts import Host as CorralHost
from corral.remote.installed import operator
from operations import Commands
from operations.telling import complain, inform

# Gets the host and the answer of a job; False when it failed, having said why.
Then = Callable[[Host, dict[str, Any]], bool]

LOST = "connection lost. Next: run the same deploy again"
_SECONDS_BETWEEN_LINES = 5


def run(
    helper: str, name: str, kind: str, spec: dict[str, Any], *, token: str | None = None
) -> Commands:
    """Commands that run a job of the helper to its end, printing its progress.

    + kind: fetch, activate and so on; + spec: what it works from, without secrets
    + token: for the hub; the job is lent it as a credential
    The job outlives this connection; the same job started again is joined, not repeated.
    """
    yield _start(helper, name, kind, spec, token)
    yield FunctionCommand(follow, (helper, name), {})


def perform(
    host: Host, helper: str, name: str, kind: str, spec: dict[str, Any], *, then: Then | None = None
) -> bool:
    """The same from within a command; False when the job failed, or ``then`` did.

    + then: what to do with the answer of a job that went well.
    """
    command = _start(helper, name, kind, spec)
    how = {**arguments(host), **command.connector_arguments}
    try:
        ok, output = host.run_shell_command(command, **how)
    except (OSError, SSHException, EOFError):
        report(host, [LOST])
        return False
    if not ok:
        report(host, output.stderr.splitlines())
        return False
    return follow(host.state, host, helper, name, then)


def _start(
    helper: str, name: str, kind: str, spec: dict[str, Any], token: str | None = None
) -> StringCommand:
    job = {"kind": kind, "spec": spec, "by": operator(), "at": datetime.now(UTC).isoformat()}
    job |= {"token": token} if token else {}
    return StringCommand(
        "python3", "-I", QuoteString(helper), "start", QuoteString(name), _stdin=json.dumps(job)
    )


def reached(of: CorralHost, host: Host) -> CorralHost:
    """A host with how pyinfra reaches it, for ssh(1): a connection for each question."""
    return of.model_copy(update={"data": {**of.data, **arguments(host)}})


def fail(message: str) -> Commands:
    """A command that fails with a message, without touching the host."""
    yield FunctionCommand(_report, (message,), {})


def follow(
    state: State,  # noqa: ARG001 - pyinfra's
    host: Host,
    helper: str,
    name: str,
    then: Then | None = None,
) -> bool:
    """Print a job's news until it ends; False when it failed or the connection was lost."""
    offset, last = 0, ""
    next_line_at = time.monotonic()
    while True:
        news = _ask(
            host, StringCommand("python3", "-I", QuoteString(helper), "poll", name, str(offset))
        )
        if news is None:
            say(host, f"connection lost; {name} goes on there. Next: run the same deploy again")
            return False
        if isinstance(news, CorralError):
            report(host, str(news).splitlines())
            return False
        offset, line = news.offset, (news.tail or ("",))[-1].strip()
        if not news.running:
            return _finish(host, name, news) and (then is None or then(host, news.answer or {}))
        if line and line != last and time.monotonic() >= next_line_at:
            say(host, f"{name}: {line[:100]}")
            last, next_line_at = line, time.monotonic() + _SECONDS_BETWEEN_LINES


def _finish(host: Host, name: str, news: JobNews) -> bool:
    if news.ok:
        return True
    found, log = news.wrong, f"/var/lib/corral/jobs/{name}/log"
    step = found.next_step or f"mend that, then run the same deploy again (all of it: {log} there)"
    said = [*found.what.split("\n"), f"  Next: {step}"]
    report(host, [f"{name} failed. Its last lines:", *news.tail, *said])
    return False


def _ask(host: Host, command: StringCommand) -> JobNews | CorralError | None:
    try:
        ok, output = host.run_shell_command(command, **arguments(host))
    except (OSError, SSHException, EOFError):
        return None
    if not ok:
        return None
    try:
        return read_answer(NEWS, output.stdout)
    except UnreadableError as error:
        return unreadable(host.name, error)


def arguments(host: Host) -> dict[str, Any]:
    """How the host of a running operation is spoken to, such as with sudo."""
    return {
        key: value
        for key, value in (host.current_op_global_arguments or {}).items()
        if key in CONNECTOR_ARGUMENT_KEYS
    }


def _report(state: State, host: Host, message: str) -> bool:  # noqa: ARG001 - pyinfra's
    report(host, message.splitlines())
    return False


def report(host: Host, lines: list[str]) -> None:
    """Print lines as errors of a host."""
    for line in lines:
        complain(line, host)


def say(host: Host, line: str) -> None:
    """Print a line about a host."""
    inform(line, host)
