"""Reads the page of a fleet: what status, history, baseline and drift say of each host."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from corral.cli.baseline import baselines_of
from corral.cli.drift import drift_of
from corral.cli.history import reports_of
from corral.cli.instances import observed_or_reason, standings_of
from corral.cli.reach import Planned, Target
from corral.cli.views.gpus import gpu_rows
from corral.cli.views.instances import Standing
from corral.errors import CorralError
from corral.host.activation_report import Report
from corral.host.answers import DriftRow, Forgotten, ObservedInstance
from corral.page.alerts import AlertSource
from corral.page.document import (
    AlertPage,
    FleetPage,
    GpuPage,
    HostPage,
    InstancePage,
    RolloutPage,
    Speed,
    WavePage,
    gate_speeds,
)
from corral.remote.run import on_all
from corral.rollout.journal import Journals, Rollout, now

_HISTORY_SHOWN = 20
# What changes seldom is asked for seldom by a page that is refreshed. Drift reads many files.
_RECORDS_SECONDS, _DRIFT_SECONDS = 30, 600

Means = dict[str, dict[str, float]]


@dataclass(frozen=True)
class _Records:
    """What a host keeps; + baselines: instance -> measure -> tokens/s; + unknown: why not."""

    history: tuple[Report, ...]
    baselines: Means
    unknown: tuple[str, ...]


@dataclass
class FleetReader:
    """Reads the same hosts again and again.

    + alerts: None: alerts are what hosts say
    """

    targets: Sequence[Target]
    made: Planned
    journals: Journals
    alerts: AlertSource | None = None
    _records: dict[str, tuple[float, _Records]] = field(default_factory=dict)
    _drift: dict[str, tuple[float, list[DriftRow]]] = field(default_factory=dict)

    def read(self) -> FleetPage:
        """Ask all hosts at once. A host that does not answer is on the page, with the reason."""
        hosts = tuple(on_all(self._host, self.targets))
        alerts, problem = self._alerts(hosts)
        return FleetPage(
            made_at=now(),
            hosts=hosts,
            rollouts=self._rollouts(),
            alerts=alerts,
            alerts_from=self.alerts.url if self.alerts else "",
            alerts_problem=problem,
        )

    def _host(self, target: Target) -> HostPage:
        host = target.host
        mistake = self.made.mistakes.get(host.name)
        unknown = [f"{mistake.where}: {mistake.what}"] if mistake else []
        answer = observed_or_reason(target)
        if isinstance(answer, str):
            self._drift.pop(host.name, None)
            return HostPage(name=host.name, problem=answer, unknown=tuple(unknown))
        records, drift = self._recorded(target), self._drifted(target)
        unknown += records.unknown
        if isinstance(drift, CorralError):
            unknown.append(f"its drift is unknown: {drift.what}")
        gpus = tuple(GpuPage.model_validate(row) for row in gpu_rows(host, answer))
        standings = standings_of(target, answer, self.made)
        return HostPage(
            name=host.name,
            instances=tuple(_instance(one, gpus, records) for one in standings),
            gpus=gpus,
            gpu_problem=answer.gpu_problem,
            history=records.history,
            drift=None if isinstance(drift, CorralError) else tuple(drift),
            unknown=tuple(unknown),
        )

    def _recorded(self, target: Target) -> _Records:
        known = self._records.get(target.host.name)
        if known and time.monotonic() - known[0] < _RECORDS_SECONDS:
            return known[1]
        found = _records(target)
        self._records[target.host.name] = (time.monotonic(), found)
        return found

    def _drifted(self, target: Target) -> list[DriftRow] | CorralError:
        known = self._drift.get(target.host.name)
        if known and time.monotonic() - known[0] < _DRIFT_SECONDS:
            return known[1]
        found = drift_of(target)
        if not isinstance(found, CorralError):
            self._drift[target.host.name] = (time.monotonic(), found)
        return found

    def _alerts(self, hosts: Sequence[HostPage]) -> tuple[tuple[AlertPage, ...], str]:
        """Alerts, and why a Prometheus does not tell them."""
        if self.alerts is None:
            return tuple(alert for host in hosts for alert in _of_host(host)), ""
        try:
            return self.alerts.firing(), ""
        except CorralError as error:
            return (), f"{error.where} {error.what}"

    def _rollouts(self) -> tuple[RolloutPage, ...]:
        paths = dict.fromkeys(str(target.inventory.path.resolve()) for target in self.targets)
        found = [self.journals.last(path) for path in paths]
        return tuple(_rollout(one) for one in found if one and one.exit_code is None)


def _records(target: Target) -> _Records:
    reports = reports_of(target.pair, whole=target.whole)
    baselines = baselines_of(target.pair)
    unknown: list[str] = []
    history: tuple[Report, ...] = ()
    means: Means = {}
    if isinstance(reports, CorralError):
        unknown.append(f"its history is unknown: {reports.what}")
    else:
        shown = sorted(reports, key=lambda one: one.at, reverse=True)[:_HISTORY_SHOWN]
        # Logs are for `corral show --log`.
        history = tuple(one.model_copy(update={"log": ""}) for one in shown)
    if isinstance(baselines, str):
        unknown.append(f"its baselines are unknown: {baselines}")
    elif not isinstance(baselines, Forgotten):
        means = {one.instance: one.baseline.means for one in baselines if one.baseline}
    return _Records(history, means, tuple(unknown))


def _instance(standing: Standing, gpus: Sequence[GpuPage], records: _Records) -> InstancePage:
    found, plan, name = standing.answer, standing.plan, standing.name
    known = {
        "name": name,
        "is_good": standing.is_good,
        "problem": standing.problem,
        "in_inventory": not standing.is_orphan,
        "planned_generation": plan.generation if plan else None,
        "speeds": _speeds(name, records),
    }
    if not isinstance(found, ObservedInstance):
        return InstancePage.model_validate(known)
    predicted = [one.predicted_mib for gpu in gpus for one in gpu.holders if one.instance == name]
    sizes = [mib for mib in predicted if mib is not None]
    return InstancePage.model_validate(
        {
            **known,
            "endpoint": ", ".join(found.listening),
            "unit": f"{found.active} ({found.sub})",
            "since": found.since,
            "model": found.model,
            "quant": found.quant,
            "health": found.health,
            "generation": found.proved_generation,
            "vram_mib": found.vram_mib,
            "vram_predicted_mib": sum(sizes) if sizes else None,
        }
    )


def _speeds(name: str, records: _Records) -> tuple[Speed, ...]:
    """Of the newest activation that measured any."""
    reports = (one for one in records.history if one.instance == name and one.ok)
    measured = next(filter(None, map(gate_speeds, reports)), {})
    known: Mapping[str, float] = records.baselines.get(name, {})
    return tuple(
        Speed(measure=measure, per_second=speed, baseline_per_second=known.get(measure))
        for measure, speed in measured.items()
    )


def _of_host(host: HostPage) -> list[AlertPage]:
    """What a host says that asks for a person."""
    name, found = host.name, []
    if host.problem:
        what = host.problem.splitlines()[0]
        found.append(AlertPage(name="no answer", where=name, what=what, severity="page",
                               command=f"corral status {name}"))  # fmt: skip
    if host.gpu_problem:
        found.append(AlertPage(name="GPU", where=name, what=host.gpu_problem, severity="page",
                               command=f"corral verify {name}"))  # fmt: skip
    for one in host.instances:
        if one.problem:
            where = f"{name}/{one.name}"
            command = f"corral logs {where}" if one.in_inventory else f"corral remove {where}"
            found.append(AlertPage(name="instance", where=where, what=one.problem, severity="page",
                                   command=command))  # fmt: skip
    if host.drift:
        what = f"differs from what was deployed in {len(host.drift)} places"
        found.append(AlertPage(name="drift", where=name, what=what, severity="ticket",
                               command=f"corral drift {name}"))  # fmt: skip
    return found


def _rollout(one: Rollout) -> RolloutPage:
    waves = [
        WavePage(
            name=wave.name,
            hosts=wave.hosts,
            instances=len(steps := [s for s in one.steps if s.host in wave.hosts]),
            done=sum(map(one.is_done, steps)),
        )
        for wave in one.waves
    ]
    return RolloutPage(
        id=one.id, inventory=one.inventory, by=one.by, began_at=one.began_at, waves=tuple(waves),
        failure=one.failure,
    )  # fmt: skip
