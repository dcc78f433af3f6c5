"""The helper's job `bench` on a host: start it or join it, follow it to its answer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from corral.errors import CorralError
from corral.host import answers
from corral.host.answers import JobStatus, Started
from corral.inventory.hosts import Host
from corral.plan.host import HostPlan
from corral.project import helper_package, project_root
from corral.remote.client import installed_helper, travelling_helper
from corral.remote.helper_archive import archive
from corral.remote.progress import Progress
from corral.remote.unreached import UnreachedError

_ENDED_ALONE = "it ended without a result"
_AGAIN = "ask again with the same command"

Say = Callable[[str], None]


def refuse_other_helper(host: Host, plan: HostPlan) -> None:
    """Jobs run the helper that is installed. Raises CorralError when it is not this checkout's."""
    state = travelling_helper(host).ask(["state"], answers.STATE, plan.to_helper())
    ours = hashlib.sha256(archive(helper_package(project_root()))).hexdigest()
    if state.helper_sha256 != ours:
        what = "the helper there is another version's" if state.helper_sha256 else "is not deployed"
        raise CorralError(host.name, what, "deploy the host, then ask again")


def start(host: Host, helper: str, name: str, spec: dict[str, Any]) -> Started:
    """Start a job, or join the same one that somebody else started. Raises CorralError."""
    with _cut_link_told(host):
        return installed_helper(host, helper).start(name, "bench", spec)


def poll(host: Host, helper: str, name: str, offset: int) -> JobStatus:
    """News of a job, after a little while. Raises CorralError."""
    with _cut_link_told(host):
        return installed_helper(host, helper).poll(name, offset)


def follow(
    host: Host, helper: str, name: str, *, run: str | None, where: str, say: Say
) -> dict[str, Any]:
    """Wait for the answer of a job and tell its progress. Raises CorralError when it failed.

    + run: its id, None where the helper gave none; + where: the instance
    """
    last = ""

    def on_progress(news: Progress) -> None:
        nonlocal last
        line = _progress(news.tail)
        if line and line != last:
            say(line)
            last = line

    with _cut_link_told(host):
        return _answer(
            installed_helper(host, helper).follow(name, on_progress=on_progress, run=run), where
        )


def _progress(tail: Sequence[str]) -> str:
    """The last line for people; results themselves are for the end."""
    return next((line[:100] for line in reversed(tail) if line and not line.startswith("{")), "")


def _answer(news: JobStatus, where: str) -> dict[str, Any]:
    if news.ok:
        return news.answer or {}
    if news.wrong.what.startswith(_ENDED_ALONE):
        raise CorralError(where, f"{_ENDED_ALONE} (killed, or a reboot)", _AGAIN)
    raise news.wrong.error(where, f"fix that, then {_AGAIN}")


@contextmanager
def _cut_link_told(host: Host) -> Iterator[None]:
    """Raises CorralError that says what goes on there, in place of UnreachedError."""
    try:
        yield
    except UnreachedError as error:
        what = f"connection lost ({error.reason}); a benchmark that runs there goes on"
        step = f"{_AGAIN}: it joins, or fetches the result"
        raise CorralError(host.name, what, step) from error
