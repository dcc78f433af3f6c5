"""The client of the host helper's protocol: ask it, start its jobs, follow them to their end.

How words reach a host is its transport's business: ssh(1), a connection for each question, or the
one that pyinfra has open (operations/transport.py).
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
from corral.host.answers import NEWS, STARTED, JobNews, Started
from corral.host.fault import Fault, read_fault
from corral.host.reading import UnreadableError, read_answer, unreadable
from corral.inventory.hosts import Host
from corral.project import helper_package, project_root
from corral.remote.bounded import Ended
from corral.remote.helper_archive import BOOTSTRAP, encoded
from corral.remote.progress import OnProgress, Progress, progress_of
from corral.remote.transport import SshTransport
from corral.remote.unreached import UnreachedError, see_that_ssh_works

# A host that accepts and then says nothing is given up after so long, by the kind of question.
# Keepalives of ssh do not help: its daemon answers them.
_SECONDS = 120
_LONGER_SECONDS = {
    "state": 300, "instances": 300, "gpus": 300, "check": 900, "releases": 900, "prune": 1800,
    "rehash": 24 * 3600,
}  # fmt: skip
# A helper that answers with errors, as while a host boots; a cut link may last longer.
ERRORS_SECONDS = 60
_PAUSE_SECONDS = 2
# Of a run whose result is not there any more, as the next job of that name began.
REPLACED = Fault(what="it ended, and another one began", next_step="run the same command again")

T = TypeVar("T")


class Transport(Protocol):
    """A way to a host."""

    @property
    def name(self) -> str:
        """The host's, for errors."""

    def run(self, words: Sequence[str], sent: str, *, seconds: float) -> Ended:
        """Run ``words`` there as root, with ``sent`` on their standard input.

        + seconds: until an answer is there, where the transport limits that

        Raises UnreachedError when the connection failed, CorralError when the words did not run.
        """


@dataclass(frozen=True)
class HelperClient:
    """A helper on a host.

    + program: words that run it; + sent_first: on its standard input before any document
    + otherwise: the next step of an error where the helper names none
    """

    transport: Transport
    program: tuple[str, ...]
    sent_first: str = ""
    otherwise: str = ""

    def ask(
        self,
        words: Sequence[str],
        shape: TypeAdapter[T],
        sent: str = "",
        *,
        seconds: float | None = None,
        secret: bool = False,
    ) -> T:
        """The answer to a command, checked.

        + words: the command and its arguments; + sent: a document on its standard input
        + seconds: for the answer, where the usual is not it; + secret: no message shows what came

        Raises UnreachedError when the connection failed or nothing came in time, CorralError when
        the helper did, or when its answer is not of this shape.
        """
        limit = seconds or _LONGER_SECONDS.get(words[0], _SECONDS)
        sent = f"{self.sent_first}{sent}"
        ended = self.transport.run([*self.program, *words], sent, seconds=limit)
        host, out = self.transport.name, ended.out.decode(errors="replace")
        if ended.code != 0:
            said = ended.err.decode(errors="replace").strip()
            found = read_fault(out, said or f"exit code {ended.code}")
            raise found.error(host, self.otherwise)
        try:
            return read_answer(shape, out)
        except UnreadableError as error:
            if secret:
                hidden = UnreadableError("it holds secrets, and is not shown")
                raise unreadable(host, hidden) from None
            raise unreadable(host, error) from error

    def start(self, name: str, kind: str, spec: dict[str, Any]) -> Started:
        """Start a job, or join the same one where it runs already. Raises as ``ask``."""
        return self.ask(["start", name], STARTED, job_document(kind, spec))

    def poll(self, name: str, offset: int) -> JobNews:
        """News of a job, after a little while. Raises as ``ask``.

        + offset: bytes of its log that are known already
        """
        return self.ask(["poll", name, str(offset)], NEWS)

    def follow(
        self,
        name: str,
        *,
        on_progress: OnProgress,
        run: str | None = None,
        patience_seconds: float = 0,
    ) -> JobNews:
        """The last news of a run of a job.

        + on_progress: gets the progress with each answer
        + run: its id, None where the helper gave none

        Once the news are those of another run, ours ended, and how is not in them. Raises the
        last error once the host was silent for ``patience_seconds``, or its helper failed for a
        minute.
        """
        offset, heard_at = 0, time.monotonic()
        while True:
            try:
                news = self.poll(name, offset)
            except CorralError as error:
                silent = time.monotonic() - heard_at
                limit = patience_seconds if isinstance(error, UnreachedError) else ERRORS_SECONDS
                if silent >= min(limit, patience_seconds):
                    raise
                on_progress(Progress(detail=error.what, silent_seconds=silent))
                time.sleep(_PAUSE_SECONDS)
                continue
            heard_at = time.monotonic()
            if run is not None and news.run != run:
                return _replaced(news, run)
            if not news.running:
                return news
            offset = news.offset
            on_progress(progress_of(news))


def installed_helper(host: Host, path: str) -> HelperClient:
    """The helper that a deploy put on a host, over ssh(1)."""
    return HelperClient(SshTransport(host), ("python3", "-I", path))


def travelling_helper(host: Host) -> HelperClient:
    """The helper of this checkout, over ssh(1): it travels on standard input.

    A host with an older one, or none, answers as well.
    """
    return HelperClient(
        SshTransport(host),
        ("python3", "-I", "-c", BOOTSTRAP),
        sent_first=f"{encoded(helper_package(project_root()))}\n",
        otherwise=f"{see_that_ssh_works(host)}, or deploy the host",
    )


def job_document(kind: str, spec: dict[str, Any], *, token: str | None = None) -> str:
    """What the helper's `start` takes.

    + kind: fetch, activate and so on; + spec: what it works from, without secrets
    + token: for the hub; the job is lent it as a credential
    """
    at = datetime.now(UTC).isoformat()
    job = {"kind": kind, "spec": spec, "by": current_operator(), "at": at}
    return json.dumps({**job, "token": token} if token else job)


def current_operator() -> str:
    """Current operator (user@host), recorded in locks and journals."""
    return f"{getpass.getuser()} on {platform.node()}"


def _replaced(news: JobNews, run: str) -> JobNews:
    ended = {"running": False, "ok": False, "answer": None, "fault": REPLACED}
    unsettled = news.unsettled_run == run
    return news.model_copy(update={**ended, "error": REPLACED.text, "unsettled": unsettled})
