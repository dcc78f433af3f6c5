"""The driver of activations: what a deploy, `corral rollout` and `corral revert` ask of one host.

The host does the work by itself (files/corral_host/activation/activate.py); here it is told to
begin, listened to, and told over a new connection that it may keep what passed its gate.
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
from corral.remote.client import REPLACED, HelperClient, current_operator, installed_helper
from corral.remote.progress import OnProgress, Progress
from corral.remote.unreached import UnreachedError

_WITHOUT_RESULT = ("it ended without a result", REPLACED.what)
_PAUSE_SECONDS = 3


class Traffic(Protocol):
    """Gateways in front of an instance."""

    def away(self, server: str, instance: InstancePlan) -> AbstractContextManager[bool]:
        """Send ``server`` (HOST/INSTANCE) nothing within the block; False where that cannot be."""

    def expect(self, server: str, place: Place) -> bool:
        """Look for it where it is, and where it will be; whether it moves. Raises CorralError."""

    def missing(self, server: str, place: Place) -> str | None:
        """Who does not find it there yet, after ``expect``, for people; None: all do."""

    def keep(self, server: str, place: Place | None) -> None:
        """Look for it there alone; None: where it was before ``expect``."""

    def may_be_away(self, server: str, instance: InstancePlan) -> bool:
        """What ``away`` would give, as things are now; changes nothing."""


class NoGateway:
    """Clients ask the instances themselves."""

    def away(self, *_: object) -> AbstractContextManager[bool]:
        """Nothing can be kept from an instance."""
        return nullcontext(False)

    def expect(self, *_: object) -> bool:
        """Nobody looks for it."""
        return False

    def missing(self, *_: object) -> None:
        """Nobody looks for it."""

    def keep(self, *_: object) -> None:
        """Nobody looks for it."""

    def may_be_away(self, *_: object) -> bool:
        """It cannot."""
        return False


@dataclass
class _Waited:
    """Why the last generation that waited for its confirmation got none."""

    why: str | None = None

    def told(self, report: Report) -> Report:
        """A report, with that in front of its reason."""
        reason = "\n".join(filter(None, [self.why, report.reason]))
        return report.model_copy(update={"reason": reason})


@dataclass(frozen=True)
class Driver:
    """How the activations of one host are driven.

    + host: with the keys of its data that say how it is reached
    + on_progress: gets the progress of each instance, by its name
    """

    host: Host
    plan: HostPlan
    traffic: Traffic = field(default_factory=NoGateway)
    rollout: str | None = None
    on_progress: Callable[[str, Progress], None] = lambda *_: None

    def activate(self, instance: InstancePlan) -> Report:
        """Switch to the planned generation. Raises CorralError when no report came of it."""
        name = f"{self.host.name}/{instance.name}"
        place = planned_place(instance)
        with self.traffic.away(name, instance) as drained:
            moves = self.traffic.expect(name, place)
            spec = {**_spec(self.plan, instance), **self._how(drained)}
            report = self._run("activate", instance, spec, place if moves else None)
            return self._moved(name, place, report) if moves else report

    def foresee(self, instance: InstancePlan) -> tuple[ActivationForecast, bool]:
        """How the host would switch to the planned generation, decided by itself as in `activate`.

        Gives as well whether gateways would send nothing meanwhile. Raises CorralError.
        """
        drained = self.traffic.may_be_away(f"{self.host.name}/{instance.name}", instance)
        text = json.dumps({**_spec(self.plan, instance), **self._how(drained)})
        return self._helper.ask(["foresee"], answers.FORECAST, text), drained

    def revert(self, instance: InstancePlan, to: str | None = None) -> Report:
        """Switch to ``previous``, or to the generation ``to``, from what is on the host alone.

        + instance: for its name, and for how long it may take. Raises CorralError.
        """
        name = f"{self.host.name}/{instance.name}"
        paths = self.plan.paths.model_dump()
        place = self._kept_place(instance, to)
        with self.traffic.away(name, instance) as drained:
            moves = place is not None and self.traffic.expect(name, place)
            spec = {
                "host": self.host.name, "paths": paths, "instance": instance.name, "to": to,
                **self._how(drained),
            }  # fmt: skip
            report = self._run("revert", instance, spec, place if moves else None)
            return self._moved(name, place, report) if place and moves else report

    def _kept_place(self, instance: InstancePlan, to: str | None) -> Place | None:
        if isinstance(self.traffic, NoGateway):
            return None
        try:
            return stored_place(stored_plan(self.host, self.plan, instance.name, to))
        except CorralError:
            # What is not whole there is not switched to: the job says what is wrong.
            return None

    def _moved(self, name: str, place: Place, report: Report) -> Report:
        """Gateways look for a server where it is now; in both places where nobody knows."""
        if report.ok:
            self.traffic.keep(name, place)
        elif report.serving is not None and report.serving == report.from_:
            self.traffic.keep(name, None)
        return report

    def history(self) -> list[Report]:
        """Reports that the host keeps, newest first. Raises CorralError."""
        return history(self.host, self.plan)

    def _how(self, drained: bool) -> dict[str, Any]:
        return {"drained": drained, "confirm": True, "rollout": self.rollout}

    def _run(
        self, kind: str, instance: InstancePlan, spec: dict[str, Any], place: Place | None
    ) -> Report:
        """The report of a job; + place: where its gateways must find it, None if it stays."""
        job = f"activate-{instance.name}"
        before = self._newest(instance)
        run = self._helper.start(job, kind, spec).run
        patience, waited = instance.activation.longest_seconds, _Waited()
        try:
            on_progress = self._listener(instance, place, waited)
            news = self._helper.follow(
                job, on_progress=on_progress, run=run, patience_seconds=patience
            )
        except UnreachedError as error:
            raise self._silent(instance, error) from error
        kept = partial(self._kept, instance, run, before)
        report = self._report(instance, news, kept, run, spec.get("to", instance.generation))
        return report if report.ok else waited.told(report)

    @property
    def _helper(self) -> HelperClient:
        return installed_helper(self.host, self.plan.paths.helper)

    def _listener(self, instance: InstancePlan, place: Place | None, waited: _Waited) -> OnProgress:
        name = f"{self.host.name}/{instance.name}"

        def on_progress(news: Progress) -> None:
            self.on_progress(instance.name, news)
            if news.phase != "confirm":
                return
            # What its gateways do not find waits, and is reverted at its limit.
            waited.why = self.traffic.missing(name, place) if place else None
            if waited.why:
                self.on_progress(instance.name, Progress(phase="confirm", detail=waited.why))
            else:
                self._confirm(instance, news.detail)

        return on_progress

    def _confirm(self, instance: InstancePlan, generation: str) -> None:
        words = ["confirm", instance.name, generation]
        try:
            self._helper.ask(words, answers.ANYTHING)
        except CorralError as error:
            # Cut: asked again with the next news. Refused: nothing waits any more, and the report
            # says what became of it.
            self.on_progress(instance.name, Progress(phase="confirm", detail=error.what))

    def _newest(self, instance: InstancePlan) -> Report | None:
        name = f"{self.host.name}/{instance.name}"
        return next((one for one in self.history() if one.name == name), None)

    def _kept(
        self, instance: InstancePlan, run: str | None, before: Report | None
    ) -> Report | None:
        """The report of a run among those that the host keeps; without an id, a new one is."""
        if run is None:
            newest = self._newest(instance)
            return newest if newest != before else None
        name = f"{self.host.name}/{instance.name}"
        return next((one for one in self.history() if (one.run, one.name) == (run, name)), None)

    def _report(
        self, instance: InstancePlan, news: JobStatus, kept: Callable[[], Report | None],
        run: str | None, to: str | None,
    ) -> Report:  # fmt: skip
        """The job's own, or that of who settled it after a reboot or a kill."""
        name = f"{self.host.name}/{instance.name}"
        if news.answer:
            return self._own(instance, as_answer(answers.REPORT, news.answer, where=name))
        told, deadline = news.wrong.text, time.monotonic() + instance.activation.longest_seconds
        while told.startswith(_WITHOUT_RESULT) and time.monotonic() < deadline:
            try:
                if found := kept():
                    return found
                if not news.unsettled:
                    return self._untouched(instance, run, to, told)
                self.on_progress(instance.name, Progress(detail="the host settles it"))
            except CorralError as error:
                self.on_progress(instance.name, Progress(detail=error.what))
            time.sleep(_PAUSE_SECONDS)
        raise news.wrong.error(name)

    def _own(self, instance: InstancePlan, report: Report) -> Report:
        """A rollout counts by the names in reports: no host reports on another one."""
        if report.name != f"{self.host.name}/{instance.name}":
            what = f"its report is about {report.name}"
            step = f"`corral history {self.host.name}`, and see what runs as the helper there"
            raise CorralError(self.host.name, what, step)
        return report

    def _untouched(
        self, instance: InstancePlan, run: str | None, to: str | None, why: str
    ) -> Report:
        """Of an activation that ended before it had written down that it would touch anything."""
        state = self._helper.ask(["state"], answers.STATE, self.plan.to_helper())
        found = state.instances.get(instance.name)
        if found is None:
            raise CorralError(self.host.name, f"does not tell of {instance.name}", "deploy it")
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
            f"{error.what}. It goes on by itself: a generation that nobody confirms within "
            f"{instance.activation.confirm_seconds} s of its gate is reverted there"
        )
        step = f"`corral history {self.host.name}` once it is reached; the same command goes on"
        return CorralError(f"{self.host.name}/{instance.name}", what, step)


def history(host: Host, plan: HostPlan) -> list[Report]:
    """Reports of all instances of a host, newest first. Raises CorralError."""
    paths = plan.paths.model_dump_json()
    return installed_helper(host, plan.paths.helper).ask(["history"], answers.REPORTS, paths)


def stored_plan(
    host: Host, plan: HostPlan, instance: str, generation: str | None
) -> dict[str, Any]:
    """The plan that a generation on a host was kept with last, else staged with.

    + generation: None for the one before

    Raises CorralError where it is not whole there.
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
