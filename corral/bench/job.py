"""Jobs of the helper that measure: start one or join it, follow it to its answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from corral.bench.store import Pending
from corral.errors import CorralError
from corral.host import answers
from corral.host.answers import JobStatus, Started
from corral.inventory.hosts import Host
from corral.plan.host import HostPlan
from corral.plan.key_digest import state_question
from corral.project import helper_package, project_root
from corral.remote.client import installed_helper, travelling_helper
from corral.remote.helper_archive import archive
from corral.remote.progress import Progress
from corral.remote.unreached import UnreachedError

_ENDED_ALONE = "it ended without a result"
_AGAIN = "run the same command again"

PrintLine = Callable[[str], None]


def refuse_other_helper(host: Host, plan: HostPlan) -> None:
    """Raises CorralError when the installed helper, which runs jobs, is not this checkout's."""
    state = travelling_helper(host).ask(["state"], answers.STATE, state_question(plan))
    ours = hashlib.sha256(archive(helper_package(project_root()))).hexdigest()
    if state.helper_sha256 != ours:
        what = "the helper there is another version's" if state.helper_sha256 else "is not deployed"
        raise CorralError(host.name, what, f"deploy the host, then {_AGAIN}")


class Notes(Protocol):
    """Where it is kept that a job was asked for and its answer is not here yet."""

    def pending(self, host: str, instance: str) -> Pending | None: ...

    def expect(self, host: str, instance: str, pending: Pending) -> None: ...


@dataclass(frozen=True)
class Question:
    """A job of an instance; ``spec``: what it works from."""

    host: Host
    helper: str
    instance: str
    kind: str
    spec: dict[str, Any]

    @property
    def job(self) -> str:
        """Name of the helper's job."""
        return f"{self.kind}-{self.instance}"

    @property
    def name(self) -> str:
        """HOST/INSTANCE, as arguments of `corral`."""
        return f"{self.host.name}/{self.instance}"


def answer_of(question: Question, notes: Notes, print_line: PrintLine) -> dict[str, Any]:
    """Run a job, join the same one where it runs, or fetch its answer. Raises CorralError."""
    host, name, helper = question.host, question.job, question.helper
    # As the host keeps it, so that a joined one compares equal.
    spec = json.loads(json.dumps(question.spec))
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()
    status = poll(host, helper, name, 0)
    ended = status.answer if status.ok else None
    before = str(ended.get("began_at")) if ended else None
    pending = notes.pending(host.name, question.instance)
    if ended and pending and pending.spec_sha256 == digest and pending.before != before:
        print_line("fetching the result of the one that ended meanwhile")
        return dict(ended)
    notes.expect(host.name, question.instance, Pending(spec_sha256=digest, before=before))
    started = start(host, helper, name, spec, kind=question.kind)
    by = started.by or "somebody"
    joined = f"joining the one that {by} started"
    print_line(joined if started.joined else "started; it goes on without this command")
    return follow(host, helper, name, run=started.run, where=question.name, print_line=print_line)


def start(
    host: Host, helper: str, name: str, spec: dict[str, Any], *, kind: str = "bench"
) -> Started:
    """Start a job, or join the same job where it runs already. Raises CorralError."""
    with _cut_link(host):
        return installed_helper(host, helper).start(name, kind, spec)


def poll(host: Host, helper: str, name: str, offset: int) -> JobStatus:
    """Status of a job. Raises CorralError."""
    with _cut_link(host):
        return installed_helper(host, helper).poll(name, offset)


def follow(
    host: Host, helper: str, name: str, *, run: str | None, where: str, print_line: PrintLine
) -> dict[str, Any]:
    """Follow a job to its answer and print its progress. Raises CorralError when it failed.

    + run: its id, None from a helper without ids; + where: the instance
    """
    last = ""

    def on_progress(progress: Progress) -> None:
        nonlocal last
        line = _progress(progress.tail)
        if line and line != last:
            print_line(line)
            last = line

    with _cut_link(host):
        return _answer(
            installed_helper(host, helper).follow(name, on_progress=on_progress, run=run), where
        )


def _progress(tail: Sequence[str]) -> str:
    """The last line that is not a result."""
    return next((line[:100] for line in reversed(tail) if line and not line.startswith("{")), "")


def _answer(status: JobStatus, where: str) -> dict[str, Any]:
    if status.ok:
        return status.answer or {}
    if status.wrong.what.startswith(_ENDED_ALONE):
        raise CorralError(where, f"{_ENDED_ALONE} (killed, or a reboot)", _AGAIN)
    raise status.wrong.error(where, f"fix that, then {_AGAIN}")


@contextmanager
def _cut_link(host: Host) -> Iterator[None]:
    """Turn an UnreachedError into a CorralError that says that the benchmark continues."""
    try:
        yield
    except UnreachedError as error:
        what = f"connection lost ({error.reason}); a running benchmark continues there"
        step = f"{_AGAIN}: it joins, or fetches the result"
        raise CorralError(host.name, what, step) from error
