"""Driver of activations for a deploy, `corral rollout` and `corral revert`.

The host works by itself (files/corral_host/activation/activate.py). The driver starts the job,
follows it, and confirms a generation that passed its gate over a new connection.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

from corral.errors import CorralError
from corral.gateway.moves import Place, planned_place, stored_place
from corral.host import answers
from corral.host.activation_report import Report
from corral.host.answers import ActivationForecast, JobStatus
from corral.host.reading import as_answer
from corral.inventory.hosts import Host
from corral.plan.host import HostPlan
from corral.plan.instance import INSTANCE_FILES, InstancePlan
from corral.plan.key_digest import state_question
from corral.remote.client import REPLACED, HelperClient, current_operator, installed_helper
from corral.remote.progress import OnProgress, Progress
from corral.remote.unreached import UnreachedError

_WITHOUT_RESULT = ("it ended without a result", REPLACED.what)
_PAUSE_SECONDS = 3


class Traffic(Protocol):
    """Gateways in front of an instance."""

    def drained(self, server: str, instance: InstancePlan) -> AbstractContextManager[bool]:
        """Drain ``server`` (HOST/INSTANCE) within the block; False where it cannot be drained."""

    def expect(self, server: str, place: Place) -> bool:
        """Add its new place to gateways; returns whether it moves. Raises CorralError."""

    def missing(self, server: str, place: Place) -> str | None:
        """After ``expect``: the gateway that does not reach it yet, as a sentence, or None."""

    def keep(self, server: str, place: Place | None) -> None:
        """Keep one place of it; None: the one before ``expect``."""

    def can_drain(self, server: str, instance: InstancePlan) -> bool:
        """Whether it could be drained now; changes nothing."""


class NoGateway:
    """Traffic without gateways: clients connect to instances."""

    def drained(self, *_: object) -> AbstractContextManager[bool]:
        """An instance cannot be drained."""
        return nullcontext(False)

    def expect(self, *_: object) -> bool:
        """There is no gateway to change."""
        return False

    def missing(self, *_: object) -> None:
        """There is no gateway to check."""

    def keep(self, *_: object) -> None:
        """There is no gateway to change."""

    def can_drain(self, *_: object) -> bool:
        """An instance cannot be drained."""
        return False


@dataclass
class _Unconfirmed:
    """Why the last generation that waited for confirmation was not confirmed."""

    why: str | None = None

    def add_to(self, report: Report) -> Report:
        """The report, with this before its reason."""
        reason = "\n".join(filter(None, [self.why, report.reason]))
        return report.model_copy(update={"reason": reason})


@dataclass(frozen=True)
class Driver:
    """Driver of the activations of one host.

    + host: with the connection keys of its data
    + on_progress: called with instance name and progress
    """

    host: Host
    plan: HostPlan
    traffic: Traffic = field(default_factory=NoGateway)
    rollout: str | None = None
    on_progress: Callable[[str, Progress], None] = lambda *_: None

    def activate(self, instance: InstancePlan) -> Report:
        """Activate the planned generation. Raises CorralError where there is no report."""
        name = f"{self.host.name}/{instance.name}"
        place = planned_place(instance)
        with self.traffic.drained(name, instance) as drained:
            moves = self.traffic.expect(name, place)
            spec = {**_spec(self.plan, instance), **self._how(drained)}
            report = self._run("activate", instance, spec, place if moves else None)
            return self._moved(name, place, report) if moves else report

    def forecast(self, instance: InstancePlan) -> tuple[ActivationForecast, bool]:
        """How the host would activate the planned generation now, by its own decision.

        Also returns whether gateways could drain it. Raises CorralError.
        """
        drained = self.traffic.can_drain(f"{self.host.name}/{instance.name}", instance)
        text = json.dumps({**_spec(self.plan, instance), **self._how(drained)})
        return self._helper.ask(["foresee"], answers.FORECAST, text), drained

    def revert(self, instance: InstancePlan, to: str | None = None) -> Report:
        """Revert to ``previous``, or to the generation ``to``, from the host's own files.

        + instance: for its name and time limits. Raises CorralError.
        """
        name = f"{self.host.name}/{instance.name}"
        paths = self.plan.paths.model_dump()
        place = self._stored_place(instance, to)
        with self.traffic.drained(name, instance) as drained:
            moves = place is not None and self.traffic.expect(name, place)
            spec = {
                "host": self.host.name, "paths": paths, "instance": instance.name, "to": to,
                **self._how(drained),
            }  # fmt: skip
            report = self._run("revert", instance, spec, place if moves else None)
            return self._moved(name, place, report) if place and moves else report

    def _stored_place(self, instance: InstancePlan, to: str | None) -> Place | None:
        if isinstance(self.traffic, NoGateway):
            return None
        try:
            return stored_place(stored_plan(self.host, self.plan, instance.name, to))
        except CorralError:
            # The job refuses an incomplete generation and reports why.
            return None

    def _moved(self, name: str, place: Place, report: Report) -> Report:
        """Keep the current place of a server at gateways; both where it is unknown."""
        if report.ok:
            self.traffic.keep(name, place)
        elif report.serving is not None and report.serving == report.from_:
            self.traffic.keep(name, None)
        return report

    def history(self) -> list[Report]:
        """Reports stored on the host, newest first. Raises CorralError."""
        return history(self.host, self.plan)

    def _how(self, drained: bool) -> dict[str, Any]:
        return {"drained": drained, "confirm": True, "rollout": self.rollout}

    def _run(
        self, kind: str, instance: InstancePlan, spec: dict[str, Any], place: Place | None
    ) -> Report:
        """Run a job to its report; ``place``: where gateways must reach it, None if it stays."""
        job = f"activate-{instance.name}"
        previous = self._newest(instance)
        run = self._helper.start(job, kind, spec).run
        patience, unconfirmed = instance.activation.longest_seconds, _Unconfirmed()
        try:
            on_progress = self._listener(instance, place, unconfirmed)
            status = self._helper.follow(
                job, on_progress=on_progress, run=run, patience_seconds=patience
            )
        except UnreachedError as error:
            raise self._silent(instance, error) from error
        stored = partial(self._stored, instance, run, previous)
        report = self._report(instance, status, stored, run, spec.get("to", instance.generation))
        return report if report.ok else unconfirmed.add_to(report)

    @property
    def _helper(self) -> HelperClient:
        return installed_helper(self.host, self.plan.paths.helper)

    def _listener(
        self, instance: InstancePlan, place: Place | None, unconfirmed: _Unconfirmed
    ) -> OnProgress:
        name = f"{self.host.name}/{instance.name}"

        def on_progress(progress: Progress) -> None:
            self.on_progress(instance.name, progress)
            if progress.phase != "confirm":
                return
            # A server that its gateways do not reach is not confirmed, and reverts at its limit.
            unconfirmed.why = self.traffic.missing(name, place) if place else None
            if unconfirmed.why:
                self.on_progress(instance.name, Progress(phase="confirm", detail=unconfirmed.why))
            else:
                self._confirm(instance, progress.detail)

        return on_progress

    def _confirm(self, instance: InstancePlan, generation: str) -> None:
        try:
            self._helper.ask(["confirm", instance.name, generation], answers.ANYTHING)
        except CorralError as error:
            # Cut off: confirmed again with the next progress. Refused: no generation waits any
            # more, and the report has its outcome.
            self.on_progress(instance.name, Progress(phase="confirm", detail=error.what))

    def _newest(self, instance: InstancePlan) -> Report | None:
        name = f"{self.host.name}/{instance.name}"
        return next((one for one in self.history() if one.name == name), None)

    def _stored(
        self, instance: InstancePlan, run: str | None, previous: Report | None
    ) -> Report | None:
        """The stored report of a run; without an id, a report newer than ``previous``."""
        if run is None:
            newest = self._newest(instance)
            return newest if newest != previous else None
        name = f"{self.host.name}/{instance.name}"
        return next((one for one in self.history() if (one.run, one.name) == (run, name)), None)

    def _report(
        self, instance: InstancePlan, status: JobStatus, stored: Callable[[], Report | None],
        run: str | None, to: str | None,
    ) -> Report:  # fmt: skip
        """The job's own report, or the one of the host's settling after a reboot or a kill."""
        name = f"{self.host.name}/{instance.name}"
        if status.answer:
            return self._own(instance, as_answer(answers.REPORT, status.answer, where=name))
        fault, deadline = status.wrong.text, time.monotonic() + instance.activation.longest_seconds
        while fault.startswith(_WITHOUT_RESULT) and time.monotonic() < deadline:
            try:
                if report := stored():
                    return report
                if not status.unsettled:
                    return self._untouched(instance, run, to, fault)
                self.on_progress(instance.name, Progress(detail="the host settles it"))
            except CorralError as error:
                self.on_progress(instance.name, Progress(detail=error.what))
            time.sleep(_PAUSE_SECONDS)
        raise status.wrong.error(name)

    def _own(self, instance: InstancePlan, report: Report) -> Report:
        """Refuse a report about another instance: a rollout counts by the names in reports."""
        if report.name != f"{self.host.name}/{instance.name}":
            what = f"its report is about {report.name}"
            step = f"run `corral history {self.host.name}`, and check the helper on that host"
            raise CorralError(self.host.name, what, step)
        return report

    def _untouched(
        self, instance: InstancePlan, run: str | None, to: str | None, why: str
    ) -> Report:
        """The report of an activation that ended before it changed anything."""
        state = self._helper.ask(["state"], answers.STATE, state_question(self.plan))
        found = state.instances.get(instance.name)
        if found is None:
            raise CorralError(self.host.name, f"has no state of {instance.name}", "deploy it")
        now = found.installed_generation
        report = {
            "host": self.host.name, "instance": instance.name, "at": datetime.now(UTC).isoformat(),
            "by": current_operator(), "rollout": self.rollout, "run": run, "from": now, "to": to,
            "outcome": "refused", "serving": now if found.active == "active" else None,
            "reason": f"nothing was touched: {why}",
        }  # fmt: skip
        return Report.model_validate(report)

    def _silent(self, instance: InstancePlan, error: CorralError) -> CorralError:
        what = (
            f"{error.what}. The host continues by itself: without confirmation within "
            f"{instance.activation.confirm_seconds} s of its gate it reverts"
        )
        step = (
            f"run `corral history {self.host.name}` once it is reached; the same command continues"
        )
        return CorralError(f"{self.host.name}/{instance.name}", what, step)


def history(host: Host, plan: HostPlan) -> list[Report]:
    """Reports of all instances of a host, newest first. Raises CorralError."""
    paths = plan.paths.model_dump_json()
    return installed_helper(host, plan.paths.helper).ask(["history"], answers.REPORTS, paths)


def stored_plan(
    host: Host, plan: HostPlan, instance: str, generation: str | None
) -> dict[str, Any]:
    """The plan that a generation on a host was last kept with, else staged with.

    + generation: None for the previous one

    Raises CorralError where it is not complete there.
    """
    document = {"paths": plan.paths.model_dump(), "instance": instance, "generation": generation}
    client = installed_helper(host, plan.paths.helper)
    return client.ask(
        ["generation"], answers.STORED_GENERATION, json.dumps(document)
    ).plan.model_dump()


def _spec(plan: HostPlan, instance: InstancePlan) -> dict[str, Any]:
    everyone = [_without_files(one) for one in plan.instances]
    shards = [s.model_dump(mode="json") for s in plan.shards if s.path in instance.shards]
    return {
        "host": plan.host,
        "paths": plan.paths.model_dump(),
        "instance": _without_files(instance),
        "instances": everyone,
        "releases": [release.model_dump(mode="json") for release in plan.releases],
        "shards": shards,
    }


def _without_files(instance: InstancePlan) -> dict[str, Any]:
    return instance.model_dump(mode="json", exclude=set(INSTANCE_FILES))
