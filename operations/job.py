"""Jobs of the helper: start them detached, follow them by short requests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pyinfra.api.command import FunctionCommand, QuoteString, StringCommand
from pyinfra.api.host import Host
from pyinfra.api.state import State

from corral.errors import CorralError
from corral.host.answers import JobStatus
from corral.inventory.hosts import Host as CorralHost
from corral.remote.client import job_document
from corral.remote.unreached import UnreachedError
from operations import Commands
from operations.connection import AGAIN, arguments, helper_on
from operations.live import LIVE
from operations.messages import complain, inform

# Called with the host and the answer of a job; False when it failed and has printed why.
Then = Callable[[Host, dict[str, Any]], bool]

LOST = f"connection lost. Next: {AGAIN}"


def run(
    helper: str,
    name: str,
    kind: str,
    spec: dict[str, Any],
    *,
    token: str | None = None,
    then: Then | None = None,
) -> Commands:
    """Commands that run a job of the helper to its end, printing its progress.

    + kind: fetch, activate and so on; + spec: input of the job, without secrets
    + token: for the hub; the job gets it as a credential
    + then: called with the answer of a successful job
    The job outlives this connection; the same job started again is joined, not repeated.
    """
    yield StringCommand(
        "python3", "-I", QuoteString(helper), "start", QuoteString(name),
        _stdin=job_document(kind, spec, token=token),
    )  # fmt: skip
    yield FunctionCommand(follow, (helper, name, *((then,) if then else ())), {})


def perform(
    host: Host,
    helper: str,
    name: str,
    kind: str,
    spec: dict[str, Any],
    *,
    token: str | None = None,
    then: Then | None = None,
) -> bool:
    """Like run(), from within a command; False when the job or ``then`` failed.

    + token: for the hub; + then: called with the answer of a successful job.
    """
    try:
        started = helper_on(host, helper).start(name, kind, spec, token=token)
    except UnreachedError:
        report(host, [LOST])
        return False
    except CorralError as error:
        report(host, str(error).splitlines())
        return False
    return follow(host.state, host, helper, name, then, started.run)


def reached(of: CorralHost, host: Host) -> CorralHost:
    """A host with pyinfra's connection keys, for ssh(1)."""
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
    run: str | None = None,
) -> bool:
    """Print a job's progress until it ends; False when it failed or the connection was lost.

    + run: its id, where it is known.
    """
    try:
        with LIVE.shown(host.name, partial(print_line, host)) as on_progress:
            status = helper_on(host, helper).follow(
                name, on_progress=partial(on_progress, name), run=run
            )
    except UnreachedError:
        print_line(host, f"connection lost; {name} goes on there. Next: {AGAIN}")
        return False
    except CorralError as error:
        report(host, str(error).splitlines())
        return False
    return _finish(host, name, status) and (then is None or then(host, status.answer or {}))


def _finish(host: Host, name: str, status: JobStatus) -> bool:
    if status.ok:
        return True
    found, log = status.wrong, f"/var/lib/corral/jobs/{name}/log"
    step = found.next_step or f"fix that, then {AGAIN} (all of it: {log} there)"
    said = [*found.what.split("\n"), f"  Next: {step}"]
    report(host, [f"{name} failed. Its last lines:", *status.tail, *said])
    return False


def _report(state: State, host: Host, message: str) -> bool:  # noqa: ARG001 - pyinfra's
    report(host, message.splitlines())
    return False


def report(host: Host, lines: list[str]) -> None:
    """Print lines as errors of a host."""
    for line in lines:
        complain(line, host)


def print_line(host: Host, line: str) -> None:
    """Print a line about a host."""
    inform(line, host)
