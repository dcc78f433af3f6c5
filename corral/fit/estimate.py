"""What one instance needs: exact weights and KV on each device, and bounds for the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from corral.catalog import EngineKind
from corral.fit.compute import HostParts, gpu_compute_bytes, host_compute_bytes
from corral.fit.devices import HOST, Devices, devices
from corral.fit.gguf import Tensor
from corral.fit.kv_cache import kv_bytes
from corral.fit.model import ModelFile
from corral.fit.shape import Shape
from corral.fit.weights import largest_host_tensors_bytes, loaded, weights_bytes
from corral.plan import ResolvedPlacement
from corral.profile import Profile

MIB = 1024**2
# What the driver keeps of a GPU's memory before any process: 615 MiB of an H200's 143771.
DRIVER_MIB = 640
# The CUDA context with the engine's code, and what its libraries take at the first prompt: 592
# MiB and up to 136 MiB on an H200 (docs/measurements/).
CUDA_CONTEXT_BYTES = 600 * MIB
CUDA_POOLS_BYTES = 136 * MIB
# ik_llama.cpp held 90 to 250 MiB more than mainline in three settings on an H200.
IK_BYTES = 256 * MIB
# The server's own heap and code, and pinned buffers.
PROCESS_BYTES = 512 * MIB


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes on one device."""

    weights_bytes: int = 0
    kv_bytes: int = 0
    compute_bytes: int = 0
    runtime_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.kv_bytes + self.compute_bytes + self.runtime_bytes


@dataclass(frozen=True, slots=True)
class Estimate:
    """Needs per GPU of the instance, in order, and of the host.

    ``unknown`` is empty, or says why only the weights are known. On the host the weights are
    mapped pages, the runtime is the process and its saved prompts.
    """

    gpus: tuple[Need, ...]
    host: Need
    unknown: str = ""


def estimate(
    model: ModelFile,
    profile: Profile,
    placement: ResolvedPlacement,
    *,
    kind: EngineKind = "llama.cpp",
    gpu_memory_mib: Sequence[int],
    outputs_per_batch: int | None = None,
) -> Estimate:
    """What an instance needs on GPUs of so much memory.

    ``outputs_per_batch``: see corral.fit.compute; a server's of this kind if None.
    Raises UnknownDeviceError for an override, ValueError for a cache type that does not divide.
    """
    rules = devices(
        placement,
        blocks=model.blocks,
        gpu_memory_mib=gpu_memory_mib,
        split_mode=profile.split_mode,
        main_gpu=profile.main_gpu,
    )
    tensors = loaded(model.tensors, layers=model.layers, mtp=bool(profile.mtp_draft_tokens))
    weights = weights_bytes(tensors, rules)
    if model.shape is None:
        return _weights_only(weights, rules, model.unknown)
    kv = kv_bytes(model.shape, profile, rules)
    parts = _host_parts(tensors, kv, rules)
    outputs = outputs_per_batch or _server_outputs(profile, kind)
    runtime = CUDA_CONTEXT_BYTES + CUDA_POOLS_BYTES + (IK_BYTES if kind == "ik_llama.cpp" else 0)
    return Estimate(
        gpus=tuple(
            Need(
                weights_bytes=weights.get(n, 0),
                kv_bytes=kv.get(n, 0),
                compute_bytes=_gpu_compute(n, model.shape, profile, parts, rules, outputs),
                runtime_bytes=runtime,
            )
            for n in range(len(rules.shares))
        ),
        host=Need(
            weights_bytes=weights.get(HOST, 0),
            kv_bytes=kv.get(HOST, 0),
            compute_bytes=host_compute_bytes(model.shape, profile),
            runtime_bytes=PROCESS_BYTES + profile.prompt_cache_mib * MIB,
        ),
    )


def _weights_only(weights: Mapping[int, int], rules: Devices, unknown: str) -> Estimate:
    found = [Need(weights_bytes=weights.get(n, 0)) for n in range(len(rules.shares))]
    return Estimate(tuple(found), Need(weights_bytes=weights.get(HOST, 0)), unknown)


def _gpu_compute(
    n: int, shape: Shape, profile: Profile, parts: HostParts, rules: Devices, outputs: int
) -> int:
    """Logits are computed where the output layer is, which is the last GPU."""
    output = rules.of_output
    here = outputs if output in (n, HOST) or rules.cuts_matrices else 0
    compute = gpu_compute_bytes(shape, profile, parts, outputs_per_batch=here)
    # An MTP block computes in a context of its own, over as wide a batch.
    return compute * 2 if profile.mtp_draft_tokens and shape.mtp_blocks else compute


def _server_outputs(profile: Profile, kind: EngineKind) -> int:
    """One token a slot, and those it drafted; ik_llama.cpp makes room for a whole batch."""
    if kind == "ik_llama.cpp":
        return profile.ubatch_tokens
    return profile.slots * (1 + (profile.mtp_draft_tokens or 0))


def _host_parts(tensors: Sequence[Tensor], kv: Mapping[int, int], rules: Devices) -> HostParts:
    experts, others = largest_host_tensors_bytes(tensors, rules)
    on_host = rules.of_output == HOST
    output = sum(t.size_bytes for t in tensors if t.name == "output.weight") if on_host else 0
    return HostParts(
        largest_expert_tensor=experts,
        largest_other_tensor=others,
        output_tensor=output,
        has_layers=rules.has_host_blocks,
        has_kv=kv.get(HOST, 0) > 0,
    )
