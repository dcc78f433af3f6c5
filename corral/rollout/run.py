"""The course of a rollout: waves with soaks between them, verification, and the revert."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from corral.errors import CorralError
from corral.host.activation_report import Report
from corral.inventory.hosts import Host
from corral.plan.host import HostPlan
from corral.planning.waves import Wave
from corral.remote.progress import Progress
from corral.remote.run import on_all
from corral.remote.unreached import UnreachedError
from corral.rollout.activation import Driver
from corral.rollout.gateways import Gateways, NoGateways, settled_hosts
from corral.rollout.health import Health
from corral.rollout.journal import CONVERGED, MIXED, REVERTED, Rollout, Step, now
from corral.rollout.view import View

Pair = tuple[Host, HostPlan]


class Failed(Exception):  # noqa: N818 - the end of a rollout, not an error of a program
    """Why a rollout does not go on."""


@dataclass(frozen=True)
class Means:
    """What a rollout works with.

    + hosts: by name, all that it may touch; + driver: for a host, with who hears its news
    + health: of changed instances; + locks: raises CorralError when a host is not held any more
    + save: keeps the journal; + gateways: those that it may switch
    + verified: hosts whose gateway is as planned once all is changed
    """

    hosts: Mapping[str, Pair]
    driver: Callable[[Pair, Callable[[str, Progress], None]], Driver]
    health: Health
    locks: Callable[[], None]
    save: Callable[[Rollout], None]
    view: View
    gateways: Gateways = field(default_factory=NoGateways)
    verified: tuple[str, ...] = ()


class Course:
    """A rollout while it runs; ``rollout`` is its journal so far, saved after each step.

    + leave: HOST/INSTANCEs that are not reverted, since they changed again meanwhile
    """

    def __init__(self, rollout: Rollout, means: Means, leave: frozenset[str] = frozenset()) -> None:
        self.rollout = rollout
        self._means = means
        self._leave = leave
        self._lock = threading.Lock()

    def run(self) -> Rollout:
        """Go on from where the journal stands, to the end."""
        self._note()
        if not self.rollout.failure:
            try:
                self._forward()
                return self._end(CONVERGED)
            except (Failed, CorralError) as error:
                self._note(failure=str(error))
                self._means.view.say(f"stopped: {error}")
        return self._end(self._back())

    def _forward(self) -> None:
        done: list[str] = []
        for wave in self.rollout.waves:
            steps = [step for step in self.rollout.steps if step.host in wave.hosts]
            self._means.locks()
            self._wave(wave, steps)
            done += [step.name for step in steps]
            if wave is not self.rollout.waves[-1]:
                self._soak(wave, done)
        self._switch_gateways()
        self._verify(done)

    def _switch_gateways(self) -> None:
        """Each proves that its aliases answer, or takes itself back."""
        for step in self.rollout.gateways:
            if step.host not in self.rollout.gateways_switched:
                self._means.locks()
                self._means.view.say(f"gateway {step.host}")
                self._switch_gateway(step.host)

    def _switch_gateway(self, name: str) -> None:
        again = name in self.rollout.gateways_begun
        self._add("gateways_begun", name)
        try:
            switched = self._means.gateways.switch(name, settled_hosts(self._settled()))
        except UnreachedError:
            # Nobody knows whether it was switched.
            raise
        except CorralError:
            self._not_begun(name)
            raise
        if switched or again:
            self._add("gateways_switched", name)
        else:
            # The last instance that moved made it what is planned.
            self._not_begun(name)

    def _not_begun(self, name: str) -> None:
        left = tuple(one for one in self.rollout.gateways_begun if one != name)
        self._note(gateways_begun=left)

    def _settled(self) -> list[str]:
        """Hosts that serve their plan: those with nothing to do, and those that have done it."""
        left = {step.host for step in self.rollout.steps if not self.rollout.is_done(step)}
        left |= set(self.rollout.left_out)
        return [name for name in self._means.hosts if name not in left]

    def _wave(self, wave: Wave, steps: Sequence[Step]) -> None:
        left = [step for step in steps if not self.rollout.is_done(step)]
        if not left:
            return
        self._means.view.say(f"{wave.name}: {', '.join(step.name for step in left)}")
        by_host = [[step for step in left if step.host == name] for name in wave.hosts]
        failures = on_all(self._host, [steps for steps in by_host if steps])
        if told := [failure for failure in failures if failure]:
            raise Failed("; ".join(told))

    def _host(self, steps: Sequence[Step]) -> str:
        """Change the instances of one host; gives why one failed, and leaves those after it."""
        for step in steps:
            try:
                report = self._activate(step)
            except CorralError as error:
                self._means.view.say(str(error))
                return f"{step.name}: {error.what}"
            self._add("reports", report)
            self._means.view.ended(report)
            if not report.ok:
                reason = (report.reason.splitlines() or [""])[0]
                return f"{step.name}: {report.outcome}: {reason}"
        return ""

    def _activate(self, step: Step) -> Report:
        _, plan = self._means.hosts[step.host]
        instance = plan.instance(step.instance)
        if instance is None or instance.generation != step.to_generation:
            what = "is planned otherwise now than when the rollout began"
            raise CorralError(step.name, what, "begin a new rollout")
        self._add("begun", step.name)
        return self._driver(step.host).activate(instance)

    def _driver(self, host: str) -> Driver:
        def on_progress(instance: str, news: Progress) -> None:
            self._means.view.on_progress(f"{host}/{instance}", news)

        return self._means.driver(self._means.hosts[host], on_progress)

    def _soak(self, wave: Wave, names: Sequence[str]) -> None:
        seconds = self.rollout.soak_seconds
        self._means.view.say(f"{wave.name} soaks for {seconds} s")
        if problems := self._means.health.problems(names, for_seconds=seconds):
            raise Failed(f"after {wave.name}: {'; '.join(problems)}")

    def _verify(self, names: Sequence[str]) -> None:
        self._means.view.say("verifying")
        if problems := self._means.health.problems(names, gateways=self._means.verified):
            raise Failed(f"verification: {'; '.join(problems)}")

    def _back(self) -> int:
        """Revert what is done, the last wave first; gives the exit code."""
        if self.rollout.on_failure == "revert":
            self._revert_gateways()
            for wave in reversed(self.rollout.waves):
                steps = self._to_take_back()[::-1]
                by_host = [[step for step in steps if step.host == name] for name in wave.hosts]
                on_all(self._take_back, [steps for steps in by_host if steps])
        mixed = self._to_take_back() or self.rollout.gateways_to_revert() or self.rollout.unclear()
        return MIXED if mixed else REVERTED

    def _revert_gateways(self) -> None:
        """Before the instances: these still take what a gateway showed them before."""
        for name in self.rollout.gateways_to_revert():
            try:
                self._means.gateways.revert(name)
                self._add("gateways_reverted", name)
                self._means.view.say(f"gateway {name} is reverted")
            except CorralError as error:
                self._means.view.say(str(error))

    def _to_take_back(self) -> list[Step]:
        return [step for step in self.rollout.to_take_back() if step.name not in self._leave]

    def _take_back(self, steps: Sequence[Step]) -> None:
        """One after the other; one that fails keeps no other from being reverted."""
        for step in steps:
            _, plan = self._means.hosts[step.host]
            instance = plan.instance(step.instance)
            if instance is None:
                self._means.view.say(f"{step.name} is not in the inventory any more: left as it is")
                continue
            try:
                report = self._driver(step.host).revert(instance, step.from_generation)
            except CorralError as error:
                self._means.view.say(str(error))
                continue
            self._add("reverts", report)
            self._means.view.ended(report)

    def _add(self, key: str, one: object) -> None:
        """Hosts of a wave report at the same time."""
        with self._lock:
            self._note(**{key: (*getattr(self.rollout, key), one)})

    def _note(self, **changes: object) -> None:
        self.rollout = self.rollout.model_copy(update=changes)
        self._means.save(self.rollout)

    def _end(self, exit_code: int) -> Rollout:
        self._note(ended_at=now(), exit_code=exit_code)
        return self.rollout
