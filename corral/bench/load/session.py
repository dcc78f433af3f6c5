"""A connection to a host for a load test: its lock, facts about the server, runs of a program."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from corral.engines.load import LoadCommand
from corral.errors import CorralError
from corral.host.answers import HostAnswer
from corral.host.fault import Fault
from corral.host.reading import as_answer
from corral.inventory.hosts import Host
from corral.names import MOMENT
from corral.project import helper_package, project_root
from corral.remote.helper_archive import BOOTSTRAP, encoded
from corral.remote.lease import Lease
from corral.remote.repeating import repeated

# The host ends the load test after a minute without a heartbeat.
_HEARTBEAT_SECONDS = 15
# Beyond the time limit of a program: its start and its end.
_AROUND_SECONDS = 120
_TOKENS = 16


class Facts(HostAnswer):
    """A server before its load test, by its host.

    + in_flight: requests of others; None if the server does not report them
    + tokens: tokens of text, from which prompts are made; empty if it cannot be asked
    + url: where a load generator on the host finds the server
    """

    began_at: Annotated[str, Field(pattern=MOMENT)]
    cpu: str
    gpus: tuple[str, ...]
    commit: str
    in_flight: int | None
    tokens: tuple[Annotated[int, Field(ge=0)], ...]
    url: str


class _Ran(HostAnswer):
    ran: dict[str, Any] | None = None
    fault: Fault | None = None


_FACTS, _RAN = TypeAdapter(Facts), TypeAdapter(_Ran)


class Session:
    """The helper's `load` on a host, while the connection lasts.

    + facts: see Facts

    Raises CorralError where a benchmark runs on the host, or the server does not serve its plan.
    """

    def __init__(self, lease: Lease, name: str) -> None:
        self._lease = lease
        self._name = name
        self.facts: Facts = as_answer(_FACTS, lease.answer, where=name)

    @property
    def lasts(self) -> bool:
        """Whether the connection still exists."""
        return self._lease.lasts()

    def run(self, command: LoadCommand, *, limit_seconds: int) -> dict[str, Any]:
        """Run a load generator of the release on the host; returns the figures that it wrote.

        Raises CorralError; nothing is left running.
        """
        question = {**command._asdict(), "limit_seconds": limit_seconds}
        self._lease.send(json.dumps(question))
        document = self._lease.read(_is_answer, seconds=limit_seconds + _AROUND_SECONDS)
        answer = as_answer(_RAN, document, where=self._name)
        if answer.ran is None:
            raise (answer.fault or Fault(what="no figures")).error(self._name)
        return answer.ran


def _is_answer(document: dict[str, Any]) -> bool:
    return "ran" in document or "fault" in document


@contextmanager
def session(host: Host, spec: dict[str, Any], name: str) -> Iterator[Session]:
    """Open a session, and end it with all that it started.

    + spec: document of the helper's `load`; + name: HOST/INSTANCE
    """
    lines = [encoded(helper_package(project_root())), json.dumps(spec)]
    command = ["python3", "-I", "-c", BOOTSTRAP, "load"]
    lease = Lease(host, command, *lines)
    try:
        with repeated(lambda: lease.send(""), seconds=_HEARTBEAT_SECONDS):
            yield Session(lease, name)
    finally:
        lease.close()


def enough(tokens: Sequence[int], name: str) -> Sequence[int]:
    """Tokens to make prompts from. Raises CorralError for a server that has none."""
    if len(tokens) < _TOKENS:
        what = "the server does not tell tokens of a text, so no prompt has an exact length"
        raise CorralError(name, what, f"`corral bench {name}` measures its engine without HTTP")
    return tokens
