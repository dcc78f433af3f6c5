"""Play one scenario from beginning to end: under load, with its fault, judged by the rule."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from corral.rollout.traffic import LEASE_SECONDS
from lab.alerts.timeline import Seen
from lab.chaos import rules, tally
from lab.chaos.alerts import Watch
from lab.chaos.fleet import FOLDER, Fleet
from lab.chaos.operators import By, Done, Operator, ended
from lab.chaos.phases import NeverReachedError
from lab.chaos.rules import Found, Generation
from lab.chaos.wanted import Keys

SETTLED_SECONDS = 120
GATEWAY_SECONDS = 20
Expected = Literal["new", "old", "either"]

OLD: Keys = {"profile": "tiny-chaos", "confirm_seconds": 15, "drain_seconds": 10}


@dataclass
class Stage:
    """What a fault can act on during its scenario; ``old``: the generation of server 1.

    ``fault_at``: when the fault came, in Unix seconds; of one that waits for the new server's start
    it is when the operator began
    """

    fleet: Fleet
    by: By
    old: Generation
    operators: list[Operator] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    fault_at: float = 0.0

    def strike(self) -> None:
        """Note that the fault comes now."""
        self.fault_at = time.time()

    def begin(self, *arguments: str) -> Operator:
        """Start the operator's command that makes the change."""
        if not self.operators:
            self.strike()
        operator = self.fleet.clone.start(self.by, *arguments)
        self.operators.append(operator)
        return operator

    def change(self) -> Done:
        """Run the operator's command to its end."""
        return ended(self.begin())


Fault = Callable[[Stage], AbstractContextManager[None]]


@dataclass(frozen=True)
class Scenario:
    """One line of the table.

    + change: keys of every instance in the new state, beside those of ``base``
    + expected: the generation that every host must serve in the end, or "either"
    + run: runs the command and returns its result
    + direct: clients send requests to server 1 itself, not to the gateway
    + spared: no request may fail
    + gap_beyond_load_seconds: limit of the gap, beyond the time to load; None without a limit
    + loads: first see the new state serve; False if it could only on a quiet machine
    + alert: fires before somebody deploys again, where the fleet is watched
    """

    name: str
    fault: str
    phase: str
    make: Fault
    change: Keys
    expected: Expected
    base: Keys = field(default_factory=lambda: OLD)
    run: Callable[[Stage], Done] = Stage.change
    direct: bool = False
    spared: bool = False
    gap_beyond_load_seconds: float | None = None
    loads: bool = True
    alert: str = ""


@dataclass(frozen=True)
class Row:
    """Result of a scenario; ``wrong`` is empty if the rule held. Alerts count from the fault."""

    name: str
    fault: str
    phase: str
    by: str
    outcome: str
    exit_code: int | None
    asked: int
    failed: int
    failures: dict[str, int]
    recovery_seconds: float | None
    longest_gap_seconds: float
    command_seconds: float
    serving: dict[str, str | None]
    wrong: tuple[str, ...]
    alerts: tuple[Seen, ...]


class Player:
    """Plays scenarios on a fleet; remembers the replies of generations that it saw serve."""

    def __init__(self, fleet: Fleet, by: By, folder: Path, *, alerts: bool = False) -> None:
        self.fleet, self._by, self.folder, self._alerts = fleet, by, folder, alerts
        self._known: dict[tuple[int, str], Generation] = {}
        # The state of the last successful deploy.
        self._at: tuple[Keys, Keys] | None = None

    def play(self, scenario: Scenario) -> Row:
        """Play one scenario; afterwards the fleet serves the scenario's base again."""
        if scenario.base["profile"] != OLD["profile"]:
            self._forget_baseline()
        self.learn({**scenario.base, **scenario.change}, loads=scenario.loads)
        self.learn(scenario.base, loads=True)
        self.bring(scenario.base)
        promised = scenario.gap_beyond_load_seconds is not None
        load_seconds = rules.load_seconds(self.fleet, 1) if promised else 0.0
        out = self.folder / f"{scenario.name}.jsonl"
        out.unlink(missing_ok=True)
        stage = Stage(self.fleet, self._by, self._known[1, _text(scenario.base)])
        watch = self.watch()
        straight = scenario.direct or not self.fleet.has_gateway
        with self.fleet.load(out, server=1 if straight else None):
            done, wrong = self._act(scenario, stage)
            found = self._settled(scenario)
        summed = tally.summary(tally.read(out))
        wrong += self._judge(scenario, done, found, summed, load_seconds)
        # A killed controller leaves a drain, which ends with its lease.
        patience = GATEWAY_SECONDS + (LEASE_SECONDS if done.code is None else 0)
        wrong += self._gateway(patience)
        if watch and scenario.alert:
            wrong += watch.missed(scenario.alert)
        wrong += [*self._heal(scenario.base), *self._gateway(GATEWAY_SECONDS)]
        alerts = watch.seen(stage.fault_at) if watch else ()
        return _row(scenario, self._by, done, found, summed, wrong, alerts)

    def watch(self) -> Watch | None:
        """Watch the fleet's alerts from now on, if it has any."""
        return Watch.begin(self.fleet) if self._alerts else None

    def _forget_baseline(self) -> None:
        """Remove the baseline: tokens/s of an hour ago mean little on a shared machine.

        Another profile serves in between, so that the measuring one gets a new baseline.
        """
        self.bring(OLD)
        for n in self.fleet.numbers:
            self.fleet.on(n, f"rm -f {FOLDER}/baseline.json")

    def learn(self, keys: Keys, *, loads: bool) -> None:
        """See a state served once, so that its replies are known and its files are fetched."""
        text = _text(keys)
        if all((n, text) in self._known for n in self.fleet.numbers):
            return
        if loads:
            self.bring(keys)
        self.fleet.want(keys)
        for n in self.fleet.numbers:
            self._known[n, text] = rules.planned(self.fleet, n, serves=loads)

    def bring(self, keys: Keys, **gateway: Any) -> None:
        """Deploy this state of every instance and of the gateway; exits the program on failure."""
        if self._at == (keys, gateway):
            return
        if wrong := self._heal(keys, **gateway):
            raise SystemExit("\n".join(wrong))

    def _heal(self, keys: Keys, **gateway: Any) -> list[str]:
        """Run the plain deploy, which leftovers of a fault must not prevent."""
        self.fleet.want(keys, **gateway)
        done = self.fleet.clone.deploy()
        self._at = (keys, gateway) if done.code == 0 else None
        return [f"the next deploy failed:\n{done.text[-2000:]}"] if done.code != 0 else []

    def _gateway(self, patience_seconds: float) -> list[str]:
        if not self.fleet.has_gateway:
            return []
        return rules.of_gateway(self.fleet, patience_seconds=patience_seconds)

    def in_order(self, keys: Keys) -> list[str]:
        """What is wrong after the plain deploy of a learnt state."""
        wrong = [*self._heal(keys), *self._gateway(GATEWAY_SECONDS)]
        for n in self.fleet.numbers:
            found = rules.look(self.fleet, n, {"wanted": self._known[n, _text(keys)]})
            wrong += [f"{self.fleet.layout.host_name(n)}: {text}" for text in found.wrong]
        return wrong

    def _act(self, scenario: Scenario, stage: Stage) -> tuple[Done, list[str]]:
        self.fleet.want({**scenario.base, **scenario.change})
        done = Done(None, "", 0.0)
        try:
            with scenario.make(stage):
                done = scenario.run(stage)
        except NeverReachedError as error:
            return done, [*stage.problems, f"{error}; output:\n{done.text[-1500:]}"]
        return done, stage.problems

    def _settled(self, scenario: Scenario) -> dict[int, Found]:
        """State of each server once all are in order, or after SETTLED_SECONDS."""
        deadline = time.monotonic() + SETTLED_SECONDS
        while True:
            found = {n: self._look(n, scenario) for n in self.fleet.numbers}
            if time.monotonic() > deadline or not any(one.wrong for one in found.values()):
                return found
            time.sleep(1)

    def _look(self, n: int, scenario: Scenario) -> Found:
        states = {"old": scenario.base, "new": {**scenario.base, **scenario.change}}
        texts = {name: _text(keys) for name, keys in states.items()}
        known = {name: self._known[n, text] for name, text in texts.items()}
        return rules.look(self.fleet, n, known)

    def _judge(
        self,
        scenario: Scenario,
        done: Done,
        found: dict[int, Found],
        summed: tally.Summary,
        load_seconds: float,
    ) -> list[str]:
        wrong = [
            f"{self.fleet.layout.host_name(n)}: {text}"
            for n, one in found.items()
            for text in one.wrong
        ]
        wrong += rules.of_exit(done, list(found.values()), self._by)
        if scenario.expected != "either" and {f.serves for f in found.values()} != {
            scenario.expected
        }:
            wrong.append(f"not every host serves its {scenario.expected} generation")
        if scenario.spared and summed.failed:
            wrong.append(f"{summed.failed} requests failed")
        return wrong + _too_long(scenario, summed, load_seconds)


def _too_long(scenario: Scenario, summed: tally.Summary, load_seconds: float) -> list[str]:
    if scenario.gap_beyond_load_seconds is None:
        return []
    limit, gap = load_seconds + scenario.gap_beyond_load_seconds, summed.longest_gap_seconds
    problem = f"no good reply for {gap:.1f} s; it loads in {load_seconds:.1f} s"
    return [problem] if gap > limit else []


def _text(keys: Keys) -> str:
    return json.dumps(keys, sort_keys=True)


def _row(
    scenario: Scenario,
    by: By,
    done: Done,
    found: dict[int, Found],
    summed: tally.Summary,
    wrong: list[str],
    alerts: tuple[Seen, ...],
) -> Row:
    return Row(
        name=scenario.name,
        fault=scenario.fault,
        phase=scenario.phase,
        by=by,
        outcome=outcome(found),
        exit_code=done.code,
        asked=summed.asked,
        failed=summed.failed,
        failures=summed.failures,
        recovery_seconds=summed.recovery_seconds,
        longest_gap_seconds=summed.longest_gap_seconds,
        command_seconds=done.seconds,
        serving={f"lab-{n}": one.serves for n, one in found.items()},
        wrong=tuple(wrong),
        alerts=alerts,
    )


def outcome(found: dict[int, Found]) -> str:
    """Which generation the hosts serve, or "mixed"."""
    serving = {one.serves for one in found.values()}
    outcomes = {frozenset({"new"}): "new serves", frozenset({"old"}): "old serves"}
    return outcomes.get(frozenset(map(str, serving)), "mixed")
