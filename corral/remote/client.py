"""Client of the host helper: run its commands, start its jobs, follow them to their end.

The transport runs commands on a host: ssh(1) with a connection for each command, or pyinfra's open
connection (operations/transport.py).
"""

from __future__ import annotations

import getpass
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

from pydantic import TypeAdapter

from corral.errors import CorralError
from corral.host.answers import JOB_STATUS, STARTED, JobStatus, Started
from corral.host.fault import Fault, read_fault
from corral.host.reading import UnreadableError, read_answer, unreadable
from corral.inventory.hosts import Host
from corral.project import helper_package, project_root
from corral.remote.bounded import Ended
from corral.remote.helper_archive import BOOTSTRAP, encoded
from corral.remote.progress import OnProgress, Progress, progress_of
from corral.remote.transport import SshTransport
from corral.remote.unreached import UnreachedError, check_ssh

# Time limits, by command, for a host that accepts a connection and then does not answer. Keepalives
# of ssh do not help: its daemon answers them.
_SECONDS = 120
_LONGER_SECONDS = {
    "state": 300, "instances": 300, "gpus": 300, "check": 900, "drift": 300, "releases": 900,
    "remove": 900, "remove-all": 900, "prune": 1800, "rehash": 24 * 3600,
}  # fmt: skip
# Limit for a helper that answers with errors, as while a host boots; a cut link may last longer.
ERRORS_SECONDS = 60
_PAUSE_SECONDS = 2
# For a run whose result is lost because another job of that name began.
REPLACED = Fault(what="it ended, and another one began", next_step="run the same command again")

T = TypeVar("T")


class Transport(Protocol):
    """Runs commands on one host."""

    @property
    def name(self) -> str:
        """Name of the host, for errors."""

    def run(self, command: Sequence[str], sent: str, *, seconds: float) -> Ended:
        """Run a command on the host as root with ``sent`` on its standard input.

        + seconds: time limit of the answer, where the transport has one

        Raises UnreachedError when the connection failed, CorralError when the command did not run.
        """


@dataclass(frozen=True)
class HelperClient:
    """Client of the helper on one host.

    + program: command that runs the helper; + sent_first: standard input before any document
    + otherwise: next step of an error where the helper names none
    """

    transport: Transport
    program: tuple[str, ...]
    sent_first: str = ""
    otherwise: str = ""

    def ask(
        self,
        arguments: Sequence[str],
        shape: TypeAdapter[T],
        sent: str = "",
        *,
        seconds: float | None = None,
        secret: bool = False,
    ) -> T:
        """Run a command of the helper; returns its validated answer.

        + arguments: the command and its arguments; + sent: document for its standard input
        + seconds: time limit, instead of the usual one; + secret: no message shows the answer

        Raises UnreachedError when the connection failed or timed out, CorralError when the helper
        failed or its answer has another shape.
        """
        limit = seconds or _LONGER_SECONDS.get(arguments[0], _SECONDS)
        sent = f"{self.sent_first}{sent}"
        ended = self.transport.run([*self.program, *arguments], sent, seconds=limit)
        host, out = self.transport.name, ended.out.decode(errors="replace")
        if ended.code != 0:
            errors = ended.err.decode(errors="replace").strip()
            fault = read_fault(out, errors or f"exit code {ended.code}")
            raise fault.error(host, self.otherwise)
        try:
            return read_answer(shape, out)
        except UnreadableError as error:
            if secret:
                hidden = UnreadableError("it contains secrets and is not shown")
                raise unreadable(host, hidden) from None
            raise unreadable(host, error) from error

    def start(
        self, name: str, kind: str, spec: dict[str, Any], *, token: str | None = None
    ) -> Started:
        """Start a job, or join the same job where it runs already. Raises as ``ask``.

        + token: for the hub; see job_document()
        """
        return self.ask(["start", name], STARTED, job_document(kind, spec, token=token))

    def poll(self, name: str, offset: int) -> JobStatus:
        """Status of a job; the helper waits a moment for a change. Raises as ``ask``.

        + offset: bytes of its log that are known already
        """
        return self.ask(["poll", name, str(offset)], JOB_STATUS)

    def follow(
        self,
        name: str,
        *,
        on_progress: OnProgress,
        run: str | None = None,
        patience_seconds: float = 0,
    ) -> JobStatus:
        """Follow a run of a job; returns its last status.

        + on_progress: called with the progress of each answer
        + run: id of the run, None from a helper that has none

        The status of another run means that this one ended, its outcome unknown. Raises the last
        error after ``patience_seconds`` without an answer, or a minute of errors of the helper.
        """
        offset, answered_at = 0, time.monotonic()
        while True:
            try:
                status = self.poll(name, offset)
            except CorralError as error:
                silent = time.monotonic() - answered_at
                limit = patience_seconds if isinstance(error, UnreachedError) else ERRORS_SECONDS
                if silent >= min(limit, patience_seconds):
                    raise
                on_progress(Progress(detail=error.what, silent_seconds=silent))
                time.sleep(_PAUSE_SECONDS)
                continue
            answered_at = time.monotonic()
            if run is not None and status.run != run:
                return _replaced(status, run)
            if not status.running:
                return status
            offset = status.offset
            on_progress(progress_of(status))


def installed_helper(host: Host, path: str) -> HelperClient:
    """The helper that a deploy put on a host, over ssh(1)."""
    return HelperClient(SshTransport(host), ("python3", "-I", path))


def travelling_helper(host: Host) -> HelperClient:
    """The helper of this checkout, over ssh(1): it is sent on standard input.

    It works on a host with an older helper, and without one.
    """
    return HelperClient(
        SshTransport(host),
        ("python3", "-I", "-c", BOOTSTRAP),
        sent_first=f"{encoded(helper_package(project_root()))}\n",
        otherwise=f"{check_ssh(host)}, or deploy the host",
    )


def job_document(kind: str, spec: dict[str, Any], *, token: str | None = None) -> str:
    """The document for the helper's `start`.

    + kind: fetch, activate and so on; + spec: input of the job, without secrets
    + token: for the hub; the job gets it as a credential
    """
    at = datetime.now(UTC).isoformat()
    job = {"kind": kind, "spec": spec, "by": current_operator(), "at": at}
    return json.dumps({**job, "token": token} if token else job)


def current_operator() -> str:
    """Current operator (user@host), recorded in locks and journals."""
    return f"{getpass.getuser()} on {platform.node()}"


def _replaced(status: JobStatus, run: str) -> JobStatus:
    ended = {"running": False, "ok": False, "answer": None, "fault": REPLACED}
    unsettled = status.unsettled_run == run
    return status.model_copy(update={**ended, "error": REPLACED.text, "unsettled": unsettled})
