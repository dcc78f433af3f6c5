"""The settings that an instance could have: each planned whole, so that what fits is known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from corral.bench.tune.gains import Setting
from corral.engines import engine_module
from corral.engines.tuning import Choice, Dimension, Machine, Placing
from corral.errors import CorralError
from corral.fit.model import ModelFile
from corral.fit.placings import placing
from corral.fit.sources import AnyModel
from corral.host.state import GpuHost
from corral.inventory.hosts import Host
from corral.plan.host import HostPlan
from corral.plan.instance import Endpoint, InstancePlan
from corral.plan.placement import InstanceNeed
from corral.planning.gpus import gpu_memory_mib
from corral.planning.memory_use import DeviceMemory, memory_use
from corral.planning.overridden import with_overrides
from corral.planning.planner import Planner
from corral.planning.unit import memory_policy
from corral.schema import Frozen, did_you_mean

PORT = 8000
# In the private folder of a run's unit.
KEY_FILE = "/tmp/corral-tune-keys"  # noqa: S108
_ENDPOINT = Endpoint(address="127.0.0.1", port=PORT)


class Candidate(Frozen):
    """A setting as it would run.

    + keys: of the profile, beside those that the instance has; + properties: of its unit
    """

    keys: dict[str, Any]
    argv: tuple[str, ...]
    environment: dict[str, str]
    properties: tuple[str, ...] = ()
    need: InstanceNeed
    ready_timeout_seconds: int

    @property
    def digest(self) -> str:
        """What decides its speed: two settings with the same are one."""
        text = json.dumps([self.argv, self.environment, self.properties], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class Impossible(Frozen):
    """A setting that cannot run, and why."""

    why: str


class Value(Frozen):
    """One value of a subject, with all else as it is now; ``impossible``: why it cannot run."""

    value: str
    impossible: str | None = None


class Subject(Frozen):
    """What can be tuned: its value now, and the others."""

    subject: str
    now: str
    values: tuple[Value, ...]


class Space:
    """All settings of an instance, each planned when it is asked for.

    + plan: of the whole host, as it is deployed; + dimensions: see ``dimensions_of``
    """

    def __init__(
        self,
        planner: Planner,
        host: Host,
        plan: HostPlan,
        instance: InstancePlan,
        dimensions: Sequence[Dimension],
    ) -> None:
        self.dimensions = tuple(dimensions)
        self._planner, self._host, self._plan, self._instance = planner, host, plan, instance
        self._model = planner.model_of(host, instance.name)
        self._known: dict[Setting, Candidate | Impossible] = {}
        self._plans: dict[str, HostPlan | CorralError] = {}

    @property
    def sizes(self) -> tuple[int, ...]:
        """Choices of each dimension, the current one included."""
        return tuple(1 + len(one.choices) for one in self.dimensions)

    @property
    def current(self) -> Candidate:
        """The setting that is deployed."""
        return self._candidate(self._host, self._plan, {})

    def feasible(self, setting: Setting) -> bool:
        """Whether a setting can run, and is none that has been seen in other words."""
        return isinstance(self.at(setting), Candidate)

    def at(self, setting: Setting) -> Candidate | Impossible:
        """A setting as it would run, or why it cannot."""
        if setting not in self._known:
            self._known[setting] = self._at(setting) if any(setting) else self.current
        return self._known[setting]

    def alone(self) -> list[Subject]:
        """Each subject with each of its values, everything else as it is now."""
        return [
            Subject(
                subject=one.name,
                now=one.current,
                values=tuple(
                    Value(value=choice.label, impossible=self._why_not(d, n))
                    for n, choice in enumerate(one.choices, 1)
                ),
            )
            for d, one in enumerate(self.dimensions)
        ]

    def _why_not(self, dimension: int, choice: int) -> str | None:
        found = self.at(tuple(choice if d == dimension else 0 for d in range(len(self.sizes))))
        return found.why if isinstance(found, Impossible) else None

    def choices(self, setting: Setting) -> dict[str, str]:
        """Dimension -> choice, where it is not the current one."""
        pairs = zip(self.dimensions, setting, strict=True)
        return {one.name: one.choices[n - 1].label for one, n in pairs if n}

    def setting(self, choices: Mapping[str, str]) -> Setting | None:
        """The setting of some choices; None where there is none any more."""
        labels = {one.name: [c.label for c in one.choices] for one in self.dimensions}
        if any(choice not in labels.get(name, ()) for name, choice in choices.items()):
            return None
        return tuple(
            labels[one.name].index(choices[one.name]) + 1 if one.name in choices else 0
            for one in self.dimensions
        )

    def _at(self, setting: Setting) -> Candidate | Impossible:
        chosen = [one.choices[n - 1] for one, n in zip(self.dimensions, setting, strict=True) if n]
        try:
            found = self._planned(chosen)
        except CorralError as error:
            return Impossible(why=error.what)
        if isinstance(found, Impossible):
            return found
        seen = {self.current.digest: "now"}
        for other, known in self._known.items():
            if isinstance(known, Candidate):
                seen.setdefault(known.digest, str(self.choices(other)))
        same = seen.get(found.digest)
        return Impossible(why=f"the same as {same}") if same else found

    def _planned(self, chosen: Sequence[Choice]) -> Candidate | Impossible:
        keys: dict[str, Any] = {}
        for choice in chosen:
            keys |= choice.keys
        if wanted := next((one.placing for one in chosen if one.placing), None):
            found = self._placed(wanted, keys)
            if found is None:
                return Impossible(why="auto leaves no such placement")
            keys |= found
        host = with_overrides(self._host, self._instance.name, keys)
        plan = self._plan_of(host, keys)
        planned = plan.instance(self._instance.name)
        if planned is None or planned.release != self._instance.release:
            return Impossible(why="it needs another release of the engine")
        if lacking := self._lacking(plan):
            return Impossible(why=lacking)
        return self._candidate(host, plan, keys)

    def _lacking(self, plan: HostPlan) -> str:
        """The device that would not hold all that is planned, less than it does now; else empty."""
        now = {one.device: one.free_mib or 0 for one in self._memory(self._plan)}
        for one in self._memory(plan):
            if one.free_mib is not None and one.free_mib < min(0, now.get(one.device, 0)):
                return f"{one.device} would lack {-one.free_mib} MiB"
        return ""

    def _memory(self, plan: HostPlan) -> tuple[DeviceMemory, ...]:
        return memory_use(plan, gpu_memory_mib(self._host, self._planner.catalog)).devices

    def _placed(self, wanted: Placing, keys: Mapping[str, Any]) -> dict[str, Any] | None:
        """Keys of a placement that follows from the fit of the others."""
        if not isinstance(self._model, ModelFile):
            return None
        host = with_overrides(self._host, self._instance.name, keys)
        auto = self._plan_of(host, keys).instance(self._instance.name)
        found = placing(wanted, auto.placement, self._model) if auto else None
        return found.as_keys if found else None

    def _plan_of(self, host: Host, keys: Mapping[str, Any]) -> HostPlan:
        """Plans are kept: a placement of the fit asks for the same again. Raises CorralError."""
        name = json.dumps(keys, sort_keys=True)
        if name not in self._plans:
            try:
                self._plans[name] = self._planner.plan_host(host)
            except CorralError as error:
                self._plans[name] = error
        found = self._plans[name]
        if isinstance(found, CorralError):
            raise found
        return found

    def _candidate(self, host: Host, plan: HostPlan, keys: dict[str, Any]) -> Candidate:
        planned = plan.instance(self._instance.name) or self._instance
        argv = self._planner.argv_at(
            host, plan, self._instance.name, endpoint=_ENDPOINT, key_file=KEY_FILE
        )
        return Candidate(
            keys=keys,
            argv=argv,
            environment=planned.environment,
            properties=memory_policy(planned.settings) if planned.settings else (),
            need=planned.need,
            ready_timeout_seconds=planned.ready_timeout_seconds,
        )


def dimensions_of(
    instance: InstancePlan, machine: Machine, *, only: Sequence[str], where: str
) -> tuple[Dimension, ...]:
    """What may be changed; ``only``: names of dimensions, or all. Raises CorralError."""
    if instance.runtime.kind != "native":
        what = "runs in an image, and only native servers can be tuned"
        raise CorralError(where, what, f"`corral bench {where} --load` measures it as it runs")
    if instance.settings is None:
        what = "the plan of it does not say what its profile is"
        raise CorralError(where, what, "deploy the host, then ask again")
    found = engine_module(instance.kind).tuning_dimensions(instance.settings, machine)
    names = [one.name for one in found]
    for name in only:
        if name not in names:
            what = f'has no "{name}" to tune{did_you_mean(name, names)}'
            raise CorralError(where, what, f"`corral tune {where} --list` shows what it has")
    if not found:
        what = f"nothing of {instance.kind} is tuned"
        raise CorralError(where, what, f"`corral bench {where}` measures it as it is")
    return tuple(one for one in found if not only or one.name in only)


def machine_of(facts: GpuHost, instance: InstancePlan, model: AnyModel | None) -> Machine:
    """The part of a host and a model that decides what is worth a try."""
    if isinstance(model, ModelFile):
        experts = bool(model.shape and model.shape.experts_used)
        drafts = bool(model.mtp_blocks)
    else:
        sizes = model.dimensions if model else None
        experts = bool(sizes and sizes.n_routed_experts)
        drafts = bool(sizes and sizes.num_nextn_predict_layers)
    threads = facts.processors.threads or 1
    return Machine(
        cores=facts.processors.cores or threads,
        threads=threads,
        numa_nodes=facts.numa_nodes,
        gpus=len(instance.gpus),
        experts=experts,
        drafts=drafts,
    )
