"""Inventories: hosts and Corral's keys in host data, read from pyinfra's own files."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from corral_shared.hub import HUGGING_FACE
from pydantic import ConfigDict, Field, ValidationError, field_validator

from corral.errors import CorralError
from corral.inventory.bundle import BundleSpec
from corral.inventory.connection import problem
from corral.inventory.gateway import GatewaySpec
from corral.inventory.monitoring import MonitoringSpec
from corral.inventory.policy import PolicyKeys
from corral.inventory.pyinfra_files import host_data
from corral.inventory.run_options import RunOptions
from corral.inventory.swarm import SwarmSpec
from corral.names import GitUrl, HostName, HubUrl, ModelsFolder, safe_host_name
from corral.schema import Frozen, parse

INSTANCE_NAME = r"^[a-z0-9][a-z0-9.-]{0,47}$"
_SPARE_OFFSET = 10000


_NAME = re.compile(INSTANCE_NAME)
RuntimeName = Literal["native", "apptainer"]


class GpuKind(Frozen):
    """GPUs of one kind, as the inventory describes them."""

    name: str = Field(description="name that nvidia-smi reports")
    count: int = Field(gt=0, description="number of GPUs")
    compute_capability: str | None = Field(
        default=None,
        pattern=r"^[0-9]+\.[0-9]$",
        description='such as "8.0" for an A100; from catalog/gpus/ if unset',
    )
    memory_mib: int | None = Field(
        default=None, gt=0, description="memory of one GPU; from catalog/gpus/ if unset"
    )


class GpuSpec(GpuKind):
    """The GPUs of a host. Of several kinds: name and count of all, and the lowest capability.

    + kinds: each kind, in the order of nvidia-smi; empty for GPUs of one kind
    """

    kinds: tuple[GpuKind, ...] = Field(default=(), description='each kind, where "gpus" is a list')

    @property
    def each_kind(self) -> tuple[GpuKind, ...]:
        """All kinds, in the order of nvidia-smi."""
        return self.kinds or (self,)

    def kinds_of(self, gpus: Iterable[int | str]) -> frozenset[int]:
        """Numbers of the kinds that a set of GPUs may have; a UUID tells no kind."""
        numbers = [n for n, kind in enumerate(self.each_kind) for _ in range(kind.count)]
        named = list(gpus)
        if any(isinstance(gpu, str) for gpu in named):
            return frozenset(numbers)
        return frozenset(numbers[gpu] for gpu in named if isinstance(gpu, int))


class InstanceSpec(Frozen):
    """One running server: a profile on a port of a host."""

    name: str = Field(
        pattern=INSTANCE_NAME,
        description="lower-case letters, digits, dots and dashes; part of its unit's name",
    )
    profile: str = Field(description="an entry of catalog/profiles/")
    port: int | None = Field(default=None, gt=0, lt=65536, description="unset for a unix socket")
    address: str = Field(default="127.0.0.1", description="address to listen on")
    model: str | None = Field(default=None, description="overrides the profile's model")
    quant: str | None = Field(default=None, description="overrides the profile's quant")
    engine: str | None = Field(default=None, description="overrides the profile's engine")
    overrides: dict[str, Any] = Field(
        default_factory=dict,
        description='keys of the profile, such as {"context_tokens_per_slot": 65536}, for this '
        "instance alone; tables are merged, None puts a key back to its default",
    )
    runtime: RuntimeName | None = Field(
        default=None, description='how its release is started; "runtime" of the host if unset'
    )
    spare_port: int | None = Field(
        default=None,
        gt=0,
        lt=65536,
        description="for an activation side by side; port + 10000 if unset",
    )
    activation: Literal["auto", "in-place", "side-by-side"] = Field(
        default="auto",
        description='"side-by-side": the new server is ready on spare_port before the old one '
        'stops; "auto": side by side where host and GPU memory have room for both',
    )
    drain_seconds: int = Field(default=60, ge=0, description="time for requests in flight to end")
    confirm_seconds: int = Field(
        default=120, gt=0, description="time for the controller to confirm"
    )
    gpus: tuple[int | str, ...] = Field(
        default=(), description='indices or UUIDs of nvidia-smi ("GPU-..."); all if empty'
    )

    @property
    def planned_spare_port(self) -> int | None:
        """The spare port, configured or derived; None without a port."""
        if self.spare_port or self.port is None:
            return self.spare_port
        return self.port + (_SPARE_OFFSET if self.port + _SPARE_OFFSET < 65536 else -_SPARE_OFFSET)

    @field_validator("gpus")
    @classmethod
    def _gpu_set(cls, gpus: tuple[int | str, ...]) -> tuple[int | str, ...]:
        for gpu in gpus:
            if isinstance(gpu, str) and gpu.startswith("MIG-"):
                raise ValueError(
                    f'"{gpu}" is a slice of a GPU: Corral plans whole GPUs; switch MIG off on the '
                    "host (nvidia-smi -mig 0) and name the GPU"
                )
            if isinstance(gpu, str) and not gpu.startswith("GPU-"):
                raise ValueError(f'"{gpu}" is neither an index nor a UUID ("GPU-...")')
            if isinstance(gpu, int) and gpu < 0:
                raise ValueError(f"{gpu} is not an index")
        if len({type(gpu) for gpu in gpus}) > 1:
            raise ValueError("name GPUs by index or by UUID, not both")
        if twins := [gpu for gpu in set(gpus) if gpus.count(gpu) > 1]:
            raise ValueError(f"{twins[0]} is named twice")
        return gpus

    @field_validator("address")
    @classmethod
    def _numeric(cls, address: str) -> str:
        return str(ipaddress.ip_address(address))


class HostSpec(Frozen):
    """Corral's keys in host data that describe the host itself."""

    instances: tuple[InstanceSpec, ...] = Field(default=(), description="servers of the host")
    gpus: GpuSpec | None = Field(
        default=None,
        description="GPUs of the host; a list for several kinds, in the order of nvidia-smi; none "
        "if unset",
    )
    platform: str = Field(default="debian-12", description="an entry of catalog/platforms/")
    cuda_toolkit: str | None = Field(
        default=None,
        pattern=r"^[0-9]+\.[0-9]+$",
        description="CUDA toolkit for builds; from catalog/drivers/ if unset",
    )
    builder: bool = Field(default=False, description="builds engines for hosts of its platform")
    disposable: bool = Field(
        default=False,
        description="a host to rehearse on; `corral lock` without an inventory leaves it out",
    )
    native_build: bool = Field(
        default=False, description="builds for its own processor, never shipped to other hosts"
    )
    memory_gib: int | None = Field(
        default=None,
        gt=0,
        description="host memory; a plan that needs more is refused, and preflight compares it",
    )
    runtime: RuntimeName | None = Field(
        default=None,
        description='"apptainer": releases run in images; "native" if unset',
    )
    container_program: str = Field(
        default="apptainer",
        pattern=r"^(apptainer|singularity|(/[A-Za-z0-9._+-]+)+)$",
        description='"apptainer", "singularity", or the path of one of them',
    )
    unpack_images: bool = Field(
        default=False,
        description="unpacks images at each start, for hosts without /dev/fuse or squashfuse",
    )
    backend: str | None = Field(
        default=None, pattern="^(cuda|cpu)$", description='"cuda" on hosts with GPUs if unset'
    )
    hub_url: HubUrl = Field(default=HUGGING_FACE, description="hub that weights are fetched from")
    models_folder: ModelsFolder | None = Field(
        default=None,
        description="folder of all weights on the host, which may be a mount; files that are there "
        "already are used if they match the lock; /var/lib/corral/models if unset",
    )
    keep_weights: Literal["all", "referenced"] = Field(
        default="all",
        description='"referenced": a deploy removes weights that no plan, generation with a name '
        "(current, previous, pinned) or process needs",
    )
    engine_sources: dict[str, GitUrl] = Field(
        default_factory=dict,
        description="engine -> git URL of a mirror; of a Python environment, a simple index",
    )
    keys_folder: str | None = Field(
        default=None,
        description="folder of API keys on the controller; ~/.config/corral/keys if unset",
    )
    archives_folder: str | None = Field(
        default=None,
        description="folder of releases on the controller; ~/.local/share/corral/engines if unset",
    )
    bundle: BundleSpec | None = Field(
        default=None,
        description="a bundle (`corral bundle`) as the only source of weights, releases and "
        "packages, for hosts without a network; counts instead of hub_url and engine_sources",
    )
    gateway: GatewaySpec | None = Field(default=None, description="HAProxy in front of instances")
    monitoring: MonitoringSpec | None = Field(
        default=None, description="node_exporter with figures of GPUs and instances; {} for it"
    )
    swarm: SwarmSpec | None = Field(
        default=None,
        description="hosts take weights from each other over the LAN; True for it, or a table",
    )
    member_address: str | None = Field(
        default=None,
        description="address at which gateways reach servers that listen on all addresses, and "
        "from which a gateway connects to servers of other hosts; also that of a member of a "
        "swarm; ssh_hostname if unset",
    )

    @field_validator("swarm", mode="before")
    @classmethod
    def _switched(cls, swarm: object) -> object:
        return {True: {}, False: None}[swarm] if isinstance(swarm, bool) else swarm

    @property
    def weights_url(self) -> str:
        """The hub that a deploy fetches from, without a slash at its end."""
        return (self.bundle.url if self.bundle else self.hub_url).rstrip("/")

    @field_validator("gpus", mode="before")
    @classmethod
    def _kinds(cls, gpus: object) -> object:
        if not isinstance(gpus, list | tuple):
            return gpus
        kinds = [GpuKind.model_validate(one) for one in gpus]
        if not kinds:
            raise ValueError("the list of kinds is empty; leave the key out for a host without")
        if len(kinds) == 1:
            return kinds[0].model_dump()
        name = " + ".join(f"{kind.count} x {kind.name}" for kind in kinds)
        return GpuSpec(name=name, count=sum(kind.count for kind in kinds), kinds=tuple(kinds))

    @field_validator("member_address")
    @classmethod
    def _numeric(cls, address: str | None) -> str | None:
        return address and str(ipaddress.ip_address(address))


class Host(Frozen):
    """A host of an inventory.

    The controller keeps its API keys and benchmark results in folders of its name.
    + data: all host data, pyinfra's connection keys included; + spec: Corral's keys for the host
    + policy: its keys for the whole fleet; + options: options of this run
    + origin: the inventory file; "" where that is not known
    """

    name: HostName
    data: dict[str, Any]
    spec: HostSpec
    policy: PolicyKeys = PolicyKeys()
    options: RunOptions = RunOptions()
    origin: str = ""

    @property
    def instance_names(self) -> tuple[str, ...]:
        """Names of its instances, including those with a mistake in their data."""
        named = [one.get("name") for one in _dicts(self.data.get("instances"))]
        valid = [name for name in named if isinstance(name, str) and _NAME.fullmatch(name)]
        return tuple(dict.fromkeys([*(i.name for i in self.spec.instances), *valid]))


# Corral's keys in host data: of the host, the fleet, one run.
_KEYS: tuple[type[Frozen], ...] = (HostSpec, PolicyKeys, RunOptions)


def parse_host(name: str, data: dict[str, Any], *, origin: str = "the inventory") -> Host:
    """Validate Corral's keys in host data; ``origin`` names the file.

    Raises CorralError.
    """
    next_step = f"edit {origin}"
    _refuse_name(name, origin, next_step)
    where = f"{origin}: {name}"
    known = {key for keys in _KEYS for key in keys.model_fields}
    for key in data:
        if what := problem(key, known):
            raise CorralError(where, what, next_step)
    spec = parse(HostSpec, _of(HostSpec, data), where=where, next_step=next_step)
    policy = parse(PolicyKeys, _of(PolicyKeys, data), where=where, next_step=next_step)
    options = parse(RunOptions, _of(RunOptions, data), where=where, next_step=next_step)
    _refuse_twins(spec, where, next_step)
    _refuse_absent_gpus(spec, where, next_step)
    return Host(
        name=name, data=dict(data), spec=spec, policy=policy, options=options, origin=_file(origin)
    )


class Inventory(Frozen):
    """An inventory, as far as it can be read.

    + mistakes: host -> the mistake in its data. ``hosts`` has such a host with its valid keys
      alone: enough to reach it, and it must not be planned
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    path: Path
    hosts: tuple[Host, ...]
    mistakes: dict[str, CorralError] = {}

    @property
    def is_example(self) -> bool:
        """Whether it is an example to adapt: all its hosts have reserved addresses."""
        addresses = [str(h.data.get("ssh_hostname") or h.name) for h in self.hosts]
        return bool(addresses) and all(map(_RESERVED.search, addresses))

    @property
    def is_disposable(self) -> bool:
        """Whether all its hosts are there to rehearse on, as the lab's are."""
        return bool(self.hosts) and all(host.spec.disposable for host in self.hosts)


# Names reserved for documentation (RFC 2606): no real host has one.
_RESERVED = re.compile(r"(^|\.)example(\.(com|net|org))?\.?$", re.IGNORECASE)


def load_inventory(path: Path) -> list[Host]:
    """Read an inventory file as pyinfra does, see ``host_data``.

    Raises CorralError when the file cannot be run or a host has a mistake.
    """
    return [parse_host(host, data, origin=str(path)) for host, data in host_data(path).items()]


def read_inventory(path: Path) -> Inventory:
    """Read an inventory file, collecting the mistakes of hosts.

    A host with an unusable name has a mistake only. Raises CorralError when the file cannot be run.
    """
    hosts: list[Host] = []
    mistakes: dict[str, CorralError] = {}
    for name, data in host_data(path).items():
        host, mistake = read_host(name, data, origin=str(path))
        hosts += [host] if host else []
        mistakes |= {name: mistake} if mistake else {}
    return Inventory(path=path, hosts=tuple(hosts), mistakes=mistakes)


def read_host(
    name: str, data: dict[str, Any], *, origin: str
) -> tuple[Host | None, CorralError | None]:
    """Like parse_host(), but returns the mistake, and the host with its valid keys.

    None instead of a host with an unusable name.
    """
    try:
        return parse_host(name, data, origin=origin), None
    except CorralError as error:
        return _reachable(name, data, origin=origin), error


def _reachable(name: str, data: dict[str, Any], *, origin: str) -> Host | None:
    """A host with a mistake in its data, with each key that is valid on its own."""
    try:
        _refuse_name(name, origin, f"edit {origin}")
    except CorralError:
        return None
    instances = [
        one for one in _dicts(data.get("instances")) if _is_valid(HostSpec, {"instances": [one]})
    ]
    return Host(
        name=name,
        data=dict(data),
        spec=HostSpec.model_validate({**_valid(HostSpec, data), "instances": instances}),
        policy=PolicyKeys.model_validate(_valid(PolicyKeys, data)),
        options=RunOptions.model_validate(_valid(RunOptions, data)),
        origin=_file(origin),
    )


def _of(keys: type[Frozen], data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key in keys.model_fields}


def _valid(keys: type[Frozen], data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: v for key, v in _of(keys, data).items() if _is_valid(keys, {key: v})}


def _file(origin: str) -> str:
    return origin if origin.endswith(".py") else ""


def _is_valid(keys: type[Frozen], data: Mapping[str, Any]) -> bool:
    try:
        keys.model_validate(data)
    except ValidationError:
        return False
    return True


def _dicts(value: Any) -> list[dict[str, Any]]:
    items = value if isinstance(value, list | tuple) else ()
    return [item for item in items if isinstance(item, dict)]


def _refuse_name(name: str, origin: str, next_step: str) -> None:
    safe_host_name(name, where=origin, next_step=next_step)
    if name.startswith("-"):
        raise CorralError(origin, f"the host name {name} looks like an option", next_step)


def _refuse_twins(spec: HostSpec, where: str, next_step: str) -> None:
    names: set[str] = set()
    ports: dict[int, str] = {}
    for instance in spec.instances:
        if instance.name in names:
            raise CorralError(where, f'two instances are called "{instance.name}"', next_step)
        names.add(instance.name)
        for port in filter(None, (instance.port, instance.planned_spare_port)):
            if port in ports:
                raise CorralError(where, _shared(port, ports[port], instance), next_step)
            ports[port] = instance.name
    _refuse_port_of_monitoring(spec, {port: f'instance "{n}"' for port, n in ports.items()}, where)
    if twins := {f"{name}-spare" for name in names} & names:
        what = f'instance "{twins.pop()}" has the name of another instance\'s spare'
        raise CorralError(where, what, next_step)


def _refuse_port_of_monitoring(spec: HostSpec, taken: dict[int, str], where: str) -> None:
    if spec.monitoring is None:
        return
    if spec.gateway:
        pools = {one.port: f'alias "{alias}"' for alias, one in spec.gateway.aliases.items()}
        taken = {**taken, **pools}
        if spec.gateway.metrics_port:
            taken[spec.gateway.metrics_port] = "the metrics of its gateway"
    for program, port in spec.monitoring.ports.items():
        if port in taken:
            what = f"monitoring ({program}) and {taken[port]} share port {port}"
            raise CorralError(where, what, f"give {program} another port in its monitoring")
        taken = {**taken, port: program}


def _shared(port: int, other: str, instance: InstanceSpec) -> str:
    if other == instance.name:
        return f'instance "{other}" has port {port} as its spare_port, too'
    spare = "" if port == instance.port else ", one as its spare_port"
    return f'instances "{other}" and "{instance.name}" share port {port}{spare}'


def _refuse_absent_gpus(spec: HostSpec, where: str, next_step: str) -> None:
    for instance in spec.instances:
        if problem := _gpu_problem(instance.gpus, spec.gpus.count if spec.gpus else 0):
            raise CorralError(where, f'instance "{instance.name}" names {problem}', next_step)


def _gpu_problem(gpus: tuple[int | str, ...], count: int) -> str | None:
    if gpus and not count:
        return "gpus, but the host has none"
    absent = [gpu for gpu in gpus if isinstance(gpu, int) and gpu >= count]
    if absent:
        return f"GPU {absent[0]}, but the host has {count}, counted from 0"
    return f"{len(gpus)} GPUs, but the host has {count}" if len(gpus) > count else None
