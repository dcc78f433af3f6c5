"""Run of a rollout: waves with soaks between them, verification, and revert."""

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
    """Why a rollout stops."""


@dataclass(frozen=True)
class Context:
    """The parts that a rollout works with.

    + hosts: name -> host and plan, all that it may change
    + driver: returns the driver of a host, given a callback for its progress
    + health: of changed instances; + locks: raises CorralError when a host's lock is lost
    + save: writes the journal; + gateways: gateways that it may change
    + verified: hosts whose gateway must match its plan at the end
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
    """A running rollout; ``rollout``: its journal, saved after each step.

    + leave: HOST/INSTANCE that are not reverted, since they changed again in the meantime
    """

    def __init__(
        self, rollout: Rollout, context: Context, leave: frozenset[str] = frozenset()
    ) -> None:
        self.rollout = rollout
        self._context = context
        self._leave = leave
        self._lock = threading.Lock()

    def run(self) -> Rollout:
        """Continue from the state of the journal to the end."""
        self._note()
        if not self.rollout.failure:
            try:
                self._forward()
                return self._end(CONVERGED)
            except (Failed, CorralError) as error:
                self._note(failure=str(error))
                self._context.view.print_line(f"stopped: {error}")
        return self._end(self._revert_all())

    def _forward(self) -> None:
        done: list[str] = []
        for wave in self.rollout.waves:
            steps = [step for step in self.rollout.steps if step.host in wave.hosts]
            self._context.locks()
            self._wave(wave, steps)
            done += [step.name for step in steps]
            if wave is not self.rollout.waves[-1]:
                self._soak(wave, done)
        self._switch_gateways()
        self._verify(done)

    def _switch_gateways(self) -> None:
        """Switch each gateway; it proves that its aliases answer, or reverts by itself."""
        for step in self.rollout.gateways:
            if step.host not in self.rollout.gateways_switched:
                self._context.locks()
                self._context.view.print_line(f"gateway {step.host}")
                self._switch_gateway(step.host)

    def _switch_gateway(self, name: str) -> None:
        again = name in self.rollout.gateways_begun
        self._add("gateways_begun", name)
        try:
            switched = self._context.gateways.switch(name, settled_hosts(self._settled()))
        except UnreachedError:
            # It is unknown whether it was switched.
            raise
        except CorralError:
            self._not_begun(name)
            raise
        if switched or again:
            self._add("gateways_switched", name)
        else:
            # The last instance that moved changed it to its plan.
            self._not_begun(name)

    def _not_begun(self, name: str) -> None:
        others = tuple(one for one in self.rollout.gateways_begun if one != name)
        self._note(gateways_begun=others)

    def _settled(self) -> list[str]:
        """Hosts that serve their plan, changed or not."""
        pending = {step.host for step in self.rollout.steps if not self.rollout.is_done(step)}
        pending |= set(self.rollout.left_out)
        return [name for name in self._context.hosts if name not in pending]

    def _wave(self, wave: Wave, steps: Sequence[Step]) -> None:
        pending = [step for step in steps if not self.rollout.is_done(step)]
        if not pending:
            return
        self._context.view.print_line(f"{wave.name}: {', '.join(step.name for step in pending)}")
        by_host = [[step for step in pending if step.host == name] for name in wave.hosts]
        results = on_all(self._host, [steps for steps in by_host if steps])
        if failures := [result for result in results if result]:
            raise Failed("; ".join(failures))

    def _host(self, steps: Sequence[Step]) -> str:
        """Change the instances of one host. Return the first failure; skip the rest."""
        for step in steps:
            try:
                report = self._activate(step)
            except CorralError as error:
                self._context.view.print_line(str(error))
                return f"{step.name}: {error.what}"
            self._add("reports", report)
            self._context.view.ended(report)
            if not report.ok:
                reason = (report.reason.splitlines() or [""])[0]
                return f"{step.name}: {report.outcome}: {reason}"
        return ""

    def _activate(self, step: Step) -> Report:
        _, plan = self._context.hosts[step.host]
        instance = plan.instance(step.instance)
        if instance is None or instance.generation != step.to_generation:
            what = "its plan has changed since the rollout began"
            raise CorralError(step.name, what, "start a new rollout")
        self._add("begun", step.name)
        return self._driver(step.host).activate(instance)

    def _driver(self, host: str) -> Driver:
        def on_progress(instance: str, progress: Progress) -> None:
            self._context.view.on_progress(f"{host}/{instance}", progress)

        return self._context.driver(self._context.hosts[host], on_progress)

    def _soak(self, wave: Wave, names: Sequence[str]) -> None:
        seconds = self.rollout.soak_seconds
        self._context.view.print_line(f"{wave.name} soaks for {seconds} s")
        if problems := self._context.health.problems(names, for_seconds=seconds):
            raise Failed(f"after {wave.name}: {'; '.join(problems)}")

    def _verify(self, names: Sequence[str]) -> None:
        self._context.view.print_line("verifying")
        if problems := self._context.health.problems(names, gateways=self._context.verified):
            raise Failed(f"verification: {'; '.join(problems)}")

    def _revert_all(self) -> int:
        """Revert finished steps, the last wave first; returns the exit code."""
        if self.rollout.on_failure == "revert":
            self._revert_gateways()
            for wave in reversed(self.rollout.waves):
                steps = self._to_revert()[::-1]
                by_host = [[step for step in steps if step.host == name] for name in wave.hosts]
                on_all(self._revert, [steps for steps in by_host if steps])
        mixed = self._to_revert() or self.rollout.gateways_to_revert() or self.rollout.unclear()
        return MIXED if mixed else REVERTED

    def _revert_gateways(self) -> None:
        """Revert gateways before the instances, which still accept a gateway's previous key."""
        for name in self.rollout.gateways_to_revert():
            try:
                self._context.gateways.revert(name)
                self._add("gateways_reverted", name)
                self._context.view.print_line(f"gateway {name} is reverted")
            except CorralError as error:
                self._context.view.print_line(str(error))

    def _to_revert(self) -> list[Step]:
        return [step for step in self.rollout.to_revert() if step.name not in self._leave]

    def _revert(self, steps: Sequence[Step]) -> None:
        """Revert the instances of one host in turn; a failure does not stop the others."""
        for step in steps:
            _, plan = self._context.hosts[step.host]
            instance = plan.instance(step.instance)
            if instance is None:
                self._context.view.print_line(
                    f"{step.name} is no longer in the inventory: left unchanged"
                )
                continue
            try:
                report = self._driver(step.host).revert(instance, step.from_generation)
            except CorralError as error:
                self._context.view.print_line(str(error))
                continue
            self._add("reverts", report)
            self._context.view.ended(report)

    def _add(self, key: str, one: object) -> None:
        """Append to a field of the journal; called by several threads."""
        with self._lock:
            self._note(**{key: (*getattr(self.rollout, key), one)})

    def _note(self, **changes: object) -> None:
        self.rollout = self.rollout.model_copy(update=changes)
        self._context.save(self.rollout)

    def _end(self, exit_code: int) -> Rollout:
        self._note(ended_at=now(), exit_code=exit_code)
        return self.rollout
