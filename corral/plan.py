"""What a host will get: the result of planning, and all that later stages may know."""

from __future__ import annotations

from typing import Literal

from corral.inventory import GpuSpec
from corral.schema import Frozen
from corral.settings import HostPaths


class ReleasePlan(Frozen):
    """One engine release: where it comes from, how it is built, where it ends up."""

    engine: str
    key: str
    commit: str
    source_url: str
    backend: Literal["cpu", "cuda"]
    cmake_options: tuple[str, ...]
    targets: tuple[str, ...]
    folder: str
    scratch_bytes: int


class ShardPlan(Frozen):
    """One file of weights: where it comes from, where it goes, what its bytes must be."""

    url: str
    revision: str
    path: str
    size_bytes: int
    sha256: str


class Endpoint(Frozen):
    """Where an instance listens: an address and port, or a socket file."""

    address: str | None = None
    port: int | None = None
    socket: str | None = None

    @property
    def url(self) -> str:
        """How a person writes it."""
        if self.socket:
            return f"unix:{self.socket}"
        shown = f"[{self.address}]" if ":" in str(self.address) else self.address
        return f"http://{shown}:{self.port}"


class InstancePlan(Frozen):
    """One running server, ready to stage, activate and verify."""

    name: str
    unit: str
    unit_path: str
    unit_text: str
    generation: str
    folder: str
    key_path: str
    argv: tuple[str, ...]
    endpoint: Endpoint
    alias: str
    profile: str
    model: str
    quant: str
    release: str
    shards: tuple[str, ...]
    context_tokens_per_slot: int
    slots: int
    metrics: bool
    keyed_routes: tuple[str, ...]
    uses_gpu: bool
    ready_timeout_seconds: int


class HostPlan(Frozen):
    """Everything decided for one host; nothing downstream decides it again."""

    host: str
    paths: HostPaths
    packages: tuple[str, ...]
    commands: tuple[str, ...]
    gpus: GpuSpec | None
    releases: tuple[ReleasePlan, ...]
    shards: tuple[ShardPlan, ...]
    instances: tuple[InstancePlan, ...]

    def instance(self, name: str) -> InstancePlan | None:
        """The instance called ``name``, if this host has one."""
        return next((i for i in self.instances if i.name == name), None)

    def to_helper(self) -> str:
        """The plan as the host helper takes it: JSON, without the text of units."""
        return self.model_dump_json(exclude={"instances": {"__all__": {"unit_text"}}})
