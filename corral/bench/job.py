"""The helper's job `bench` on a host: start it or join it, follow it to its answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import TypeAdapter

from corral.errors import CorralError
from corral.host import answers
from corral.host.answers import JobNews
from corral.inventory.hosts import Host
from corral.plan.host import HostPlan
from corral.project import helper_package, project_root
from corral.remote import installed
from corral.remote.asking import UnreachedError
from corral.remote.helper import call_helper
from corral.remote.helper_archive import archive

_ENDED_ALONE = "it ended without a result"
_AGAIN = "ask again with the same command"

Say = Callable[[str], None]
T = TypeVar("T")


def refuse_other_helper(host: Host, plan: HostPlan) -> None:
    """Jobs run the helper that is installed. Raises CorralError when it is not this checkout's."""
    state = call_helper(host, "state", plan.to_helper(), answers.STATE)
    ours = hashlib.sha256(archive(helper_package(project_root()))).hexdigest()
    if state.helper_sha256 != ours:
        what = "the helper there is another version's" if state.helper_sha256 else "is not deployed"
        raise CorralError(host.name, what, "deploy the host, then ask again")


def start(host: Host, helper: str, name: str, spec: dict[str, Any]) -> str | None:
    """Start a job; gives who started it when the same one runs already. Raises CorralError."""
    by = installed.operator()
    job = {"kind": "bench", "spec": spec, "by": by, "at": datetime.now(UTC).isoformat()}
    answer = _ask(host, helper, ["start", name], answers.STARTED, json.dumps(job))
    return (answer.by or "somebody") if answer.joined else None


def poll(host: Host, helper: str, name: str, offset: int) -> JobNews:
    """News of a job, after a little while. Raises CorralError."""
    return _ask(host, helper, ["poll", name, str(offset)], answers.NEWS)


def follow(host: Host, helper: str, name: str, *, where: str, say: Say) -> dict[str, Any]:
    """Wait for the answer of a job and tell its progress. Raises CorralError when it failed."""
    offset, last = 0, ""
    while True:
        news = poll(host, helper, name, offset)
        if not news.running:
            return _answer(news, where)
        offset, line = news.offset, _progress(news.tail)
        if line and line != last:
            say(line)
            last = line


def _progress(tail: Sequence[str]) -> str:
    """The last line for people; results themselves are for the end."""
    return next((line[:100] for line in reversed(tail) if line and not line.startswith("{")), "")


def _answer(news: JobNews, where: str) -> dict[str, Any]:
    if news.ok:
        return news.answer or {}
    if news.wrong.what.startswith(_ENDED_ALONE):
        raise CorralError(where, f"{_ENDED_ALONE} (killed, or a reboot)", _AGAIN)
    raise news.wrong.error(where, f"mend that, then {_AGAIN}")


def _ask(host: Host, helper: str, words: list[str], shape: TypeAdapter[T], text: str = "") -> T:
    try:
        return installed.ask(host, helper, words, shape, text)
    except UnreachedError as error:
        what = f"connection lost ({error.reason}); a benchmark that runs there goes on"
        step = f"{_AGAIN}: it joins, or fetches the result"
        raise CorralError(host.name, what, step) from error
