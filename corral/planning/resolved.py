"""Instance specs with their references resolved and validated."""

from __future__ import annotations

from typing import Literal

from corral.catalog.entries import Catalog, Engine, EngineKind
from corral.catalog.inheritance import SourcedProfile, with_sources
from corral.catalog.profile import Profile
from corral.engines import KvPair, engine_module, reading, refuse_impossible
from corral.errors import CorralError
from corral.inventory.hosts import Host, InstanceSpec, RuntimeName
from corral.lock.lock_file import instance_profile, resolve_instance
from corral.schema import Frozen

Backend = Literal["cpu", "cuda"]


class ResolvedInstance(Frozen):
    """An instance spec, its references resolved and validated.

    + where: host and instance, for errors; + reference: text for perplexity
    + gpus: GPUs that the server computes on, by index or UUID; none with a build for the CPU
    """

    where: str
    host: Host
    spec: InstanceSpec
    engine: str
    kind: EngineKind
    model: str
    quant: str
    sourced: SourcedProfile
    backend: Backend
    gpus: tuple[int | str, ...]
    chat_template: str | None
    reference: str | None
    runtime: RuntimeName = "native"

    @property
    def profile(self) -> Profile:
        """Its profile, with the overrides of the instance."""
        return self.sourced.profile

    @property
    def label(self) -> str:
        """Its profile in messages."""
        return f"profile {self.spec.profile}"

    @property
    def alias(self) -> str:
        """The model's name in the API."""
        return self.profile.alias or self.model

    @property
    def kv_pair(self) -> KvPair | None:
        """Types of K and V that need a flash attention kernel for GPUs."""
        if not (self.gpus and self.profile.kv_on_gpu and self.profile.flash_attention):
            return None
        return self.profile.kv_type_k, self.profile.kv_type_v

    @property
    def wants_gpu(self) -> bool:
        """Whether it should use VRAM: on a GPU host a server without any is a finding.

        This includes builds for the CPU.
        """
        return self.host.spec.gpus is not None and _computes_on_gpu(self.profile)


def resolve_spec(host: Host, spec: InstanceSpec, catalog: Catalog) -> ResolvedInstance:
    """Resolve and validate an instance spec. Raises CorralError where it cannot be served."""
    where = f"{host.name}/{spec.name}"
    sourced = instance_profile(spec, catalog, where=where, inventory=host.origin)
    try:
        return _resolve(host, spec, catalog, sourced, where)
    except CorralError as error:
        raise with_sources(error, sourced) from error


def _resolve(
    host: Host, spec: InstanceSpec, catalog: Catalog, sourced: SourcedProfile, where: str
) -> ResolvedInstance:
    profile = sourced.profile
    engine, model, quant = resolve_instance(spec, catalog, where=where, inventory=host.origin)
    named = f"{where}: profile {spec.profile}"
    backend = backend_of(host, where=where)
    gpus = _gpus(host, spec) if backend == "cuda" and _computes_on_gpu(profile) else ()
    template, perplexity = profile.chat_template_file, profile.perplexity
    kind = catalog.engines[engine].kind
    refuse_unreadable(catalog, model, quant, kind, where=f"{named}, engine {engine}")
    refuse_long_context(profile, model, catalog.models[model].train_context_tokens, where)
    refuse_impossible(profile, engine=engine, kind=kind, gpus=len(gpus), where=named)
    return ResolvedInstance(
        where=where,
        host=host,
        spec=spec,
        engine=engine,
        kind=kind,
        model=model,
        quant=quant,
        sourced=sourced,
        backend=backend,
        gpus=gpus,
        chat_template=catalog.chat_template(template, where=named) if template else None,
        reference=catalog.reference(perplexity.text, where=named) if perplexity else None,
        runtime=_runtime(host, spec, catalog.engines[engine], where=f"{where}: engine {engine}"),
    )


def _runtime(host: Host, spec: InstanceSpec, engine: Engine, *, where: str) -> RuntimeName:
    """The runtime of an instance. Raises CorralError where its engine is an image alone."""
    asked = spec.runtime or (None if engine.image else host.spec.runtime)
    if engine.image and asked == "native":
        what = 'it is an image, and the instance has "runtime": "native"'
        raise CorralError(where, what, 'remove "runtime" from the instance, or name another engine')
    return asked or ("apptainer" if engine.image else "native")


def backend_of(host: Host, *, where: str) -> Backend:
    """The backend of a host's engines. Raises CorralError for CUDA without GPUs."""
    backend = host.spec.backend or ("cuda" if host.spec.gpus else "cpu")
    if backend == "cuda" and host.spec.gpus is None:
        raise CorralError(
            where, "backend is cuda, but the host has no gpus", 'add "gpus" to the host'
        )
    return "cuda" if backend == "cuda" else "cpu"


def refuse_unreadable(
    catalog: Catalog, model: str, quant: str, kind: EngineKind, *, where: str
) -> None:
    """Raises CorralError where an engine cannot read a quant."""
    only, form = (entry := catalog.models[model].quants[quant]).engine, entry.format
    read = engine_module(kind).weights
    if form not in (None, read) and read != "none":
        what = f"quant {quant} of {model} is in {form}, which {kind} does not read"
        able = " or ".join(f'"{one}"' for one in reading(form)) if form else ""
        step = f"choose an engine of kind {able}, or a model in {read}"
        raise CorralError(where, what, step)
    if only not in (None, kind):
        what = f"quant {quant} of {model} has tensor types that only {only} can read"
        raise CorralError(where, what, f'choose another quant, or an engine of kind "{only}"')


def _computes_on_gpu(profile: Profile) -> bool:
    return profile.placement != "cpu" and profile.gpu_layers != 0


def _gpus(host: Host, spec: InstanceSpec) -> tuple[int | str, ...]:
    count = host.spec.gpus.count if host.spec.gpus else 0
    return spec.gpus or tuple(range(count))


def refuse_long_context(profile: Profile, model: str, trained_tokens: int, where: str) -> None:
    """Raises CorralError for a context beyond the trained one, or beyond its RoPE scaling."""
    context, scaling = profile.context_tokens_per_slot, profile.rope_scaling
    if scaling is None:
        if context > trained_tokens:
            what = f"{context} context tokens a slot, but {model} was trained on {trained_tokens}"
            next_step = "lower context_tokens_per_slot in the profile, or set rope_scaling"
            raise CorralError(where, what, next_step)
        return
    reach = int((scaling.original_context_tokens or trained_tokens) * scaling.factor)
    if context > reach:
        what = f"{context} context tokens a slot, but rope_scaling of {model} reaches {reach}"
        raise CorralError(where, what, "lower context_tokens_per_slot, or raise the factor")
