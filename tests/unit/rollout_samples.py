"""A fleet that needs no hosts: what its helpers would say is scripted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from corral.errors import CorralError
from corral.host.activation_report import Report
from corral.host.answers import ObservedInstance
from corral.host.reading import read_answer
from corral.inventory.hosts import Host
from corral.plan.host import HostPlan
from corral.planning.waves import Wave
from corral.remote.unreached import UnreachedError
from corral.rollout.journal import OnFailure, Rollout, Step
from tests.samples import CHAT, host, planner

Pair = tuple[Host, HostPlan]
OLD = "old0"


@cache
def pair(name: str) -> Pair:
    found = host(CHAT, name=name)
    return found, planner().plan_host(found)


def generation(name: str) -> str:
    return pair(name)[1].instances[0].generation


def found_instance(**changes: Any) -> ObservedInstance:
    """An instance as its host tells of it: it runs and is well."""
    found = {"unit": "corral-chat.service", "active": "active", "sub": "running", "pid": 7,
             "since": "", "health": "ok", **changes}  # fmt: skip
    return ObservedInstance.model_validate(found)


def report(name: str, outcome: str = "kept", **changes: Any) -> dict[str, Any]:
    """As the helper of a host writes it."""
    kept = outcome in ("kept", "unchanged")
    new = generation(name)
    return {
        "host": name, "instance": "chat", "at": "2026-01-01T00:00:01Z", "by": "ann", "rollout": "r",
        "from": OLD, "to": new, "how": "in place", "outcome": outcome,
        "serving": new if kept else OLD, "reason": "" if kept else "it is no good\nmore", "phases":
        [{"phase": "gate", "seconds": 2.5}], "gate": [], "revert_gate": [], "gap_seconds": 1.0,
        "log": "", "boot_id": "b", **changes,
    }  # fmt: skip


def rollout(*names: str, on_failure: OnFailure = "revert", **changes: Any) -> Rollout:
    """One host a wave, each with one instance that served OLD."""
    steps = tuple(
        Step(
            host=name, instance="chat", from_generation=OLD, to_generation=generation(name),
            changes=("quant Q8_0 -> F16",), how="in place", estimated_seconds=9,
        )
        for name in names
    )  # fmt: skip
    waves = tuple(Wave(name=f"wave {n}", hosts=(name,)) for n, name in enumerate(names, start=1))
    fields = {
        "id": "r", "inventory": "/i/prod.py", "by": "ann", "began_at": "2026-01-01T00:00:00Z",
        "soak_seconds": 5, "on_failure": on_failure, "waves": waves, "steps": steps,
    }  # fmt: skip
    return Rollout.model_validate({**fields, **changes})


@dataclass
class FakeDriver:
    """Ends activations as told; notes what it was asked for."""

    outcomes: dict[str, str] = field(default_factory=dict)
    reverts: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    name: str = ""

    def of(self, pair: Pair, _: object) -> Any:
        return FakeDriver(self.outcomes, self.reverts, self.asked, pair[0].name)

    def activate(self, _: object) -> Report:
        self.asked.append(f"activate {self.name}")
        outcome = self.outcomes.get(self.name, "kept")
        if outcome == "silent":
            raise UnreachedError(self.name, "not reached", "wait")
        return Report.model_validate(report(self.name, outcome))

    def revert(self, _: object, to: str) -> Report:
        self.asked.append(f"revert {self.name} to {to}")
        outcome = self.reverts.get(self.name, "kept")
        if outcome == "silent":
            raise CorralError(self.name, "not reached", "wait")
        return Report.model_validate(report(self.name, outcome, to=to, serving=to))


@dataclass
class FakeHealth:
    """Tells these problems in the n-th look, counted from 0."""

    problems_of: dict[int, list[str]] = field(default_factory=dict)
    looks: list[tuple[Sequence[str], float]] = field(default_factory=list)
    gateways: list[Sequence[str]] = field(default_factory=list)

    def problems(
        self, names: Sequence[str], *, gateways: Sequence[str] = (), for_seconds: float = 0
    ) -> list[str]:
        self.looks.append((tuple(names), for_seconds))
        self.gateways.append(tuple(gateways))
        return self.problems_of.get(len(self.looks) - 1, [])


class Silent:
    """A view that shows nothing."""

    def print_line(self, line: str) -> None: ...
    def on_progress(self, name: str, news: object) -> None: ...
    def ended(self, report: Report) -> None: ...


@dataclass
class FakeHelper:
    """A host's helper: answers from queues, by command; an Exception is raised."""

    answers: dict[str, list[Any]]
    asked: list[list[str]] = field(default_factory=list)
    texts: list[Any] = field(default_factory=list)

    def ask(self, words: list[str], shape: Any, text: str = "", **_: object) -> Any:
        self.asked.append(words)
        if text:
            self.texts.append(json.loads(text))
        queue = self.answers[words[0]]
        answer = queue.pop(0) if len(queue) > 1 else queue[0]
        if isinstance(answer, Exception):
            raise answer
        return read_answer(shape, json.dumps(answer))

    @property
    def jobs(self) -> list[Any]:
        """The jobs that it was told to start."""
        return [text for text in self.texts if "spec" in text]

    def commands(self) -> list[str]:
        return [words[0] for words in self.asked]
