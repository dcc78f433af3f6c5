"""Memory need of one instance: exact weights and KV on each device, upper bounds for the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from corral.catalog.entries import EngineKind
from corral.catalog.profile import Profile
from corral.engines import engine_module
from corral.engines.base import MemoryRules
from corral.fit.allocations import made_rounding_bytes, rounding_bytes
from corral.fit.compute import (
    CUDA_POOLS_BYTES,
    HostParts,
    cpu_compute_bytes,
    fuses_experts,
    gpu_compute_bytes,
    host_compute_bytes,
    pipelined_gpu_compute_bytes,
    scores_pool_bytes,
    sort_pool_bytes,
)
from corral.fit.devices import HOST, Devices
from corral.fit.gguf import Tensor
from corral.fit.kv_cache import kv_bytes
from corral.fit.latent import made_at_load, mode_of
from corral.fit.layer_split import layout
from corral.fit.model import ModelFile
from corral.fit.shape import Shape
from corral.fit.weights import largest_host_tensors_bytes, loaded, weights_bytes
from corral.plan.placement import ResolvedPlacement

MIB = 1024**2
# The driver reserves GPU memory before any process: measured 615 MiB of an H200's 143771.
DRIVER_MIB = 640
# The CUDA context with the engine's code: measured 592 MiB on an H200 (docs/measurements/).
CUDA_CONTEXT_BYTES = 600 * MIB
# Held more by a server of glm-dsa as soon as it is ready, beside its buffers: measured 100 to 104
# MiB on each of four GPUs (tests/data/held-h200.csv). The source does not say what for.
SPARSE_ATTENTION_BYTES = 104 * MIB
SPARSE_ARCHITECTURES = ("glm-dsa",)
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
    """Needs of each GPU of the instance, in order, and of the host.

    + host: its weights are mapped pages, its runtime is the process and its saved prompts
    + unknown: why only the weights are known, or empty
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
    """The memory need of an instance.

    + gpu_memory_mib: memory of each GPU; + outputs_per_batch: see corral.fit.compute; that of a
      server of this kind if None
    Raises UnknownDeviceError for an override, ValueError for a cache type whose blocks do not
    divide a row.
    """
    engine = engine_module(kind).memory
    rules = layout(model, profile, placement, engine=engine, gpu_memory_mib=gpu_memory_mib)
    own = loaded(model.tensors, layers=model.layers, mtp=bool(profile.mtp_draft_tokens))
    made = _made_at_load(own, model.shape, profile, engine)
    tensors = [*own, *made]
    weights = weights_bytes(tensors, rules)
    if model.shape is None:
        return with_companions(_weights_only(weights, rules, model.unknown), model, profile, kind)
    kv = kv_bytes(model.shape, profile, rules, engine)
    used = {device for device in {*weights, *kv} if weights.get(device) or kv.get(device)}
    compute = _Compute(
        shape=model.shape,
        profile=profile,
        rules=rules,
        engine=engine,
        copied=_copied_parts(tensors, kv, rules, fused=fuses_experts(profile, engine)),
        outputs=outputs_per_batch or _server_outputs(profile, engine),
    )
    runtime = _runtime_bytes(model.shape, profile, engine)
    rounding = rounding_bytes(own, model.shape, profile, rules, engine)
    rounding += made_rounding_bytes(made, rules)
    found = Estimate(
        gpus=tuple(
            Need(
                weights_bytes=weights.get(n, 0),
                kv_bytes=kv.get(n, 0),
                compute_bytes=compute.gpu_bytes(n) if n in used else 0,
                runtime_bytes=runtime + rounding.get(n, 0),
            )
            for n in range(len(rules.shares))
        ),
        host=Need(
            weights_bytes=weights.get(HOST, 0),
            kv_bytes=kv.get(HOST, 0),
            compute_bytes=compute.host_bytes(),
            runtime_bytes=PROCESS_BYTES + profile.prompt_cache_mib * MIB,
        ),
    )
    return with_companions(found, model, profile, kind)


def with_companions(
    found: Estimate, model: ModelFile, profile: Profile, kind: EngineKind
) -> Estimate:
    """With a projector, a draft model on the first GPU, and LoRA adapters.

    An adapter is beside the tensors that it changes, so all of it is counted on each GPU.
    """
    found = with_draft(with_projector(found, model, profile), model, profile, kind)
    more = model.adapters_bytes
    if not found.gpus:
        host = replace(found.host, weights_bytes=found.host.weights_bytes + more)
        return replace(found, host=host)
    gpus = tuple(replace(one, weights_bytes=one.weights_bytes + more) for one in found.gpus)
    return replace(found, gpus=gpus)


# Keys of the model's own placement and cache, which do not hold for its draft model.
_OF_MODEL: dict[str, object] = {
    "draft_model": None, "lora": (), "vision": False, "mtp_draft_tokens": None,
    "kv_type_k": "f16", "kv_type_v": "f16", "tensor_overrides": (), "cpu_moe_layers": None,
    "split_mode": None, "tensor_split": None, "main_gpu": None, "prompt_cache_mib": 0,
}  # fmt: skip


def with_draft(found: Estimate, model: ModelFile, profile: Profile, kind: EngineKind) -> Estimate:
    """With all of a draft model on the first GPU, in a context of the same size."""
    if model.draft is None:
        return found
    on_gpu = bool(found.gpus)
    own = estimate(
        model.draft,
        profile.model_copy(update=_OF_MODEL),
        ResolvedPlacement(gpu_layers="all" if on_gpu else 0),
        kind=kind,
        gpu_memory_mib=[1] if on_gpu else [],
    )
    unknown = found.unknown or own.unknown
    host = _sum(found.host, replace(own.host, runtime_bytes=0))
    if not on_gpu:
        return replace(found, host=host, unknown=unknown)
    first = _sum(found.gpus[0], replace(own.gpus[0], runtime_bytes=0))
    return replace(found, gpus=(first, *found.gpus[1:]), host=host, unknown=unknown)


def _sum(one: Need, other: Need) -> Need:
    return Need(
        weights_bytes=one.weights_bytes + other.weights_bytes,
        kv_bytes=one.kv_bytes + other.kv_bytes,
        compute_bytes=one.compute_bytes + other.compute_bytes,
        runtime_bytes=one.runtime_bytes + other.runtime_bytes,
    )


def with_projector(found: Estimate, model: ModelFile, profile: Profile) -> Estimate:
    """With the projector on the first GPU, where mainline puts it, or on the host without any."""
    if model.projector is None:
        return found
    first = found.gpus[0] if found.gpus else found.host
    more = replace(
        first,
        weights_bytes=first.weights_bytes + model.projector.weights_bytes(),
        compute_bytes=first.compute_bytes + model.projector.compute_bytes(profile),
    )
    if not found.gpus:
        return replace(found, host=more)
    return replace(found, gpus=(more, *found.gpus[1:]))


def _runtime_bytes(shape: Shape, profile: Profile, engine: MemoryRules) -> int:
    """What CUDA and the engine hold on each GPU beside weights, caches and compute buffers."""
    own = CUDA_CONTEXT_BYTES + engine.runtime_bytes
    if engine.copies_in_pools:
        return own
    sort = sort_pool_bytes(shape, profile, engine)
    sparse = SPARSE_ATTENTION_BYTES if sort and shape.arch in SPARSE_ARCHITECTURES else 0
    scores = scores_pool_bytes(shape, profile, engine)
    return own + max(CUDA_POOLS_BYTES, sort, scores) + sparse


def _made_at_load(
    tensors: Sequence[Tensor], shape: Shape | None, profile: Profile, engine: MemoryRules
) -> list[Tensor]:
    """Tensors that the engine computes from others, and keeps beside them."""
    if not engine.latent_by_mode or shape is None or shape.mla is None:
        return []
    return made_at_load(tensors, shape.mla, shape.heads, mode_of(profile))


def _weights_only(weights: Mapping[int, int], rules: Devices, unknown: str) -> Estimate:
    gpus = [Need(weights_bytes=weights.get(n, 0)) for n in range(len(rules.shares))]
    return Estimate(tuple(gpus), Need(weights_bytes=weights.get(HOST, 0)), unknown)


@dataclass(frozen=True, slots=True)
class _Compute:
    """Upper bounds of compute buffers; ``copied``: parts that a GPU copies from the host."""

    shape: Shape
    profile: Profile
    rules: Devices
    engine: MemoryRules
    copied: HostParts
    outputs: int

    @property
    def is_pipeline(self) -> bool:
        """Whether GPUs work in a pipeline. Source: llama_context's constructor."""
        return self.rules.is_pipeline and self.profile.kv_on_gpu and self.engine.pipelines

    def gpu_bytes(self, n: int) -> int:
        """Upper bound for a GPU that holds a part of the model."""
        shape, profile, engine = self.shape, self.profile, self.engine
        output = self.rules.of_output
        # Logits are computed on the device of the output layer.
        outputs = self.outputs if output in (n, HOST) or self.rules.cuts_output else 0
        if self.is_pipeline:
            is_first = n == 0
            compute = pipelined_gpu_compute_bytes(
                shape, profile, engine=engine, is_first=is_first, outputs_per_batch=outputs
            )
        else:
            # Both engines compute what is in host memory on the first GPU that can.
            parts = self.copied if n == 0 else HostParts()
            compute = gpu_compute_bytes(
                shape, profile, parts, engine=engine, outputs_per_batch=outputs
            )
        return compute * self._contexts

    @property
    def _contexts(self) -> int:
        """An MTP block has contexts of its own, with the same batch size."""
        if not (self.profile.mtp_draft_tokens and self.shape.mtp_blocks):
            return 1
        return 1 + (self.profile.slots if self.engine.draft_context_per_slot else 1)

    def host_bytes(self) -> int:
        """Upper bound for the host."""
        if not self.rules.shares:
            own, drafting = (
                cpu_compute_bytes(
                    self.shape,
                    self.profile,
                    engine=self.engine,
                    outputs_per_batch=self.outputs,
                    drafting=drafts,
                )
                for drafts in (False, True)
            )
            return own + drafting * (self._contexts - 1)
        return host_compute_bytes(
            self.shape, self.profile, engine=self.engine, is_pipeline=self.is_pipeline
        )


def _server_outputs(profile: Profile, engine: MemoryRules) -> int:
    """One token per slot and its drafted tokens, or the whole batch."""
    if engine.logits_of_whole_batch:
        return profile.ubatch_tokens
    return profile.slots * (1 + (profile.mtp_draft_tokens or 0))


def _copied_parts(
    tensors: Sequence[Tensor], kv: Mapping[int, int], rules: Devices, *, fused: bool
) -> HostParts:
    experts, others = largest_host_tensors_bytes(tensors, rules, fused=fused)
    on_host = rules.of_output == HOST
    output = sum(t.size_bytes for t in tensors if t.name == "output.weight") if on_host else 0
    return HostParts(
        expert_tensors=experts,
        largest_other_tensor=others,
        output_tensor=output,
        has_layers=rules.has_host_blocks,
        has_kv=kv.get(HOST, 0) > 0,
    )
