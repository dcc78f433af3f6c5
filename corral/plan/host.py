"""What a host will get: the result of planning, and all that later stages may know."""

from __future__ import annotations

from typing import Any, Literal

from corral.catalog.drivers import GpuSetup
from corral.catalog.entries import EngineKind
from corral.catalog.gate import GoldenPrompt
from corral.inventory.hosts import GpuSpec
from corral.paths import HostPaths
from corral.plan.gateway import GatewayPlan
from corral.schema import Frozen

# Fields of InstancePlan that hold whole files: only `stage` needs them.
INSTANCE_FILES = frozenset({"unit_text", "chat_template", "reference_text"})
_ALL_FILES: dict[str, Any] = {
    **dict.fromkeys(INSTANCE_FILES, True),
    "activation": {"spare": {"unit_text"}},
}


class Toolchain(Frozen):
    """What a release is built with: a distribution's compiler and C library, and nvcc's release."""

    platform: str
    compiler: str
    c_library: str
    cuda_toolkit: str | None


class Patch(Frozen):
    """A change to an engine's sources; the text is that of a patch file."""

    name: str
    text: str


class ReleasePlan(Frozen):
    """One engine release: where it comes from, how it is built, where it ends up.

    + key: covers all that decides the bytes; + native: for the processor of its host alone
    """

    engine: str
    kind: EngineKind
    key: str
    commit: str
    patches: tuple[Patch, ...] = ()
    source_url: str
    backend: Literal["cpu", "cuda"]
    cmake_options: tuple[str, ...]
    targets: tuple[str, ...]
    toolchain: Toolchain
    native: bool = False
    folder: str
    scratch_bytes: int


class HeaderPlan(Frozen):
    """The header at the start of a shard, all bytes before its data; sha256 of those bytes."""

    size_bytes: int
    sha256: str


class ShardPlan(Frozen):
    """One file of weights: where it comes from, where it goes, what its bytes must be.

    ``header`` is None when the hub could not be asked for it.
    + gated: the hub gives it to who has the operator's token; that itself stands in no plan
    """

    url: str
    revision: str
    path: str
    size_bytes: int
    sha256: str
    header: HeaderPlan | None = None
    gated: bool = False


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


class ResolvedPlacement(Frozen):
    """Which tensors live on the GPUs, decided; 0 ``gpu_layers`` means nothing does."""

    gpu_layers: int | Literal["all"]
    experts_on_cpu: bool = False
    cpu_moe_layers: int = 0
    tensor_overrides: tuple[str, ...] = ()
    tensor_split: tuple[float, ...] = ()


class DeviceNeed(Frozen):
    """Memory that an instance needs on one device: weights and KV exactly, the rest bounded."""

    weights_mib: int
    kv_mib: int
    compute_mib: int
    runtime_mib: int

    @property
    def exact_mib(self) -> int:
        """The part that is no bound."""
        return self.weights_mib + self.kv_mib

    @property
    def total_mib(self) -> int:
        """All of it."""
        return self.weights_mib + self.kv_mib + self.compute_mib + self.runtime_mib


class InstanceNeed(Frozen):
    """What corral.fit says of an instance: each GPU of its set in order, and the host.

    + unknown: why it is not known, or known only in part; empty when all is known
    """

    gpus: tuple[DeviceNeed, ...] = ()
    host: DeviceNeed | None = None
    unknown: str = ""


class SpeedGate(Frozen):
    """Tokens per second, compared with the baseline that the host keeps for the profile.

    + prompt_tokens: lengths that are measured; + epsilon: the share that may be lost
    + runs: at each length; up to ``max_runs`` while the spread leaves the answer open
    """

    prompt_tokens: tuple[int, ...]
    generated_tokens: int
    runs: int
    max_runs: int
    epsilon: float


class PerplexityGate(Frozen):
    """Perplexity of the weights on a text, by ``llama-perplexity``.

    + text: the file's name; + text_path: on the host; + limit: the most that is kept
    """

    text: str
    text_path: str
    limit: float
    argv: tuple[str, ...]


class GatePlan(Frozen):
    """What a server must prove beyond answering, before its generation is kept."""

    golden: tuple[GoldenPrompt, ...] = ()
    speed: SpeedGate | None = None
    perplexity: PerplexityGate | None = None
    soak_seconds: int = 0


class SparePlan(Frozen):
    """The same server on a spare port, for a switch side by side."""

    unit: str
    unit_path: str
    unit_text: str
    argv: tuple[str, ...]
    endpoint: Endpoint


class ActivationPlan(Frozen):
    """How an instance changes to this generation.

    + how: auto decides on the host, from what fits; + spare: None for a unix socket
    + confirm_seconds: for the controller to confirm a gated generation, else it is reverted
    """

    how: Literal["auto", "in-place", "side-by-side"] = "auto"
    spare: SparePlan | None = None
    drain_seconds: int = 60
    confirm_seconds: int = 120


class InstancePlan(Frozen):
    """One running server, ready to stage, activate and verify.

    + environment: variables that its unit sets, as they stand there (``%C`` is /var/cache)
    + file_sha256: of each file that Corral writes for its start, by path; not of its keys
    """

    name: str
    unit: str
    unit_path: str
    unit_text: str
    file_sha256: dict[str, str] = {}
    generation: str
    folder: str
    key_path: str
    argv: tuple[str, ...]
    environment: dict[str, str] = {}
    endpoint: Endpoint
    alias: str
    profile: str
    model: str
    quant: str
    release: str
    shards: tuple[str, ...]
    context_tokens_per_slot: int
    slots: int
    gpus: tuple[int | str, ...]
    placement: ResolvedPlacement
    need: InstanceNeed
    fit_argv: tuple[str, ...] | None
    chat_template: str | None
    chat_template_path: str | None
    metrics: bool
    keyed_routes: tuple[str, ...]
    uses_gpu: bool
    ready_timeout_seconds: int
    gate: GatePlan = GatePlan()
    reference_text: str | None = None
    activation: ActivationPlan = ActivationPlan()


class HostPlan(Frozen):
    """Everything decided for one host; nothing downstream decides it again.

    + builds: releases that this host builds for the fleet, its own among them (corral.fleet)
    + gateway: what it serves for other hosts (corral.gateway.fleet)
    """

    host: str
    platform: str
    paths: HostPaths
    packages: tuple[str, ...]
    commands: tuple[str, ...]
    gpus: GpuSpec | None
    gpu_setup: GpuSetup | None = None
    releases: tuple[ReleasePlan, ...]
    builds: tuple[ReleasePlan, ...] = ()
    shards: tuple[ShardPlan, ...]
    instances: tuple[InstancePlan, ...]
    gateway: GatewayPlan | None = None

    def instance(self, name: str) -> InstancePlan | None:
        """The instance called ``name``, if this host has one."""
        return next((i for i in self.instances if i.name == name), None)

    def to_helper(self) -> str:
        """The plan as the host helper takes it: JSON, without the text of files."""
        return self.model_dump_json(exclude={"instances": {"__all__": _ALL_FILES}})
