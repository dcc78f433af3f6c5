"""The gate of an instance: what its server must prove, from its profile."""

from __future__ import annotations

import hashlib

from corral.catalog.profile import Profile
from corral.engines import engine_module
from corral.errors import CorralError
from corral.plan.gate import GatePlan, PerplexityGate, SpeedGate
from corral.plan.placement import ResolvedPlacement
from corral.plan.release import ReleasePlan
from corral.planning.resolved import ResolvedInstance

_SHORT_TOKENS = 512
# The slowest GPU hosts process this many prompt tokens in half a minute, processors a quarter of
# it: the usual three runs of all lengths end in about two minutes.
_LONG_TOKENS = 8192
_LONG_TOKENS_ON_CPU = 2048


def plan_gate(
    resolved: ResolvedInstance,
    release: ReleasePlan,
    *,
    model: str,
    placement: ResolvedPlacement,
    generation_folder: str,
) -> GatePlan:
    """The gate of an instance; ``model``: path of its first shard. Raises CorralError.

    The gate is no part of a generation, so that a changed gate restarts no server.
    """
    profile = resolved.profile
    _refuse_long(resolved)
    return GatePlan(
        golden=profile.golden,
        speed=_speed(profile, placement) if engine_module(resolved.kind).reports_speed else None,
        perplexity=_perplexity(resolved, release, model, placement, generation_folder),
        soak_seconds=profile.soak_seconds,
        tool_call=is_proved(profile.probe_tool_call, profile.tool_call_parser),
        reasoning=is_proved(profile.probe_reasoning, profile.reasoning_parser),
    )


def is_proved(asked: bool | None, parser: str | None) -> bool:
    """Whether a parser is proved: as the profile says, else where it names one."""
    return parser is not None if asked is None else asked


def _refuse_long(resolved: ResolvedInstance) -> None:
    """Raises CorralError where prompt and reply do not fit into a slot."""
    context, speed = resolved.profile.context_tokens_per_slot, resolved.profile.speed
    longest = max((golden.max_tokens for golden in resolved.profile.golden), default=0)
    if longest >= context:
        what = f"golden: max_tokens {longest} does not fit into {context} context tokens a slot"
        raise CorralError(
            f"{resolved.where}: profile {resolved.spec.profile}", what, "lower max_tokens"
        )
    measured = max(speed.prompt_tokens, default=0) + speed.generated_tokens
    if measured > context and not speed.off:
        what = f"speed: {measured} tokens do not fit into {context} context tokens a slot"
        step = "lower prompt_tokens or generated_tokens in [speed]"
        raise CorralError(f"{resolved.where}: profile {resolved.spec.profile}", what, step)


def _speed(profile: Profile, placement: ResolvedPlacement) -> SpeedGate | None:
    speed = profile.speed
    if speed.off:
        return None
    cap = _LONG_TOKENS if placement.gpu_layers else _LONG_TOKENS_ON_CPU
    lengths = speed.prompt_tokens or _lengths(profile, cap)
    return SpeedGate(
        prompt_tokens=tuple(sorted(set(lengths))),
        generated_tokens=speed.generated_tokens,
        runs=speed.runs,
        max_runs=speed.max_runs,
        epsilon=speed.epsilon,
    )


def _lengths(profile: Profile, cap: int) -> tuple[int, ...]:
    """A short prompt, and a quarter of a slot's context up to ``cap``."""
    context, generated = profile.context_tokens_per_slot, profile.speed.generated_tokens
    long = max(1, min(context // 4, cap, context - generated))
    return min(_SHORT_TOKENS, long), long


def _perplexity(
    resolved: ResolvedInstance,
    release: ReleasePlan,
    model: str,
    placement: ResolvedPlacement,
    generation_folder: str,
) -> PerplexityGate | None:
    wanted, text = resolved.profile.perplexity, resolved.reference
    if wanted is None or text is None:
        return None
    module = engine_module(resolved.kind)
    program = module.perplexity_program
    if program is None:
        what = (
            f"profile {resolved.spec.profile} has [perplexity], {resolved.kind} cannot measure it"
        )
        raise CorralError(resolved.where, what, "remove [perplexity] from the profile")
    programs = release.artifact.programs
    if programs is not None and program not in programs:
        profile, engine = resolved.spec.profile, resolved.engine
        what = f"profile {profile} has [perplexity], engine {engine} does not build {program}"
        step = f'add "{program}" to targets in catalog/engines/{engine}.toml'
        raise CorralError(resolved.where, what, step)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    path = f"{generation_folder}/reference-{digest}.txt"
    argv = module.perplexity_arguments(
        resolved.profile,
        placement,
        program=f"{release.folder}/bin/{program}",
        model=model,
        text=path,
    )
    return PerplexityGate(text=wanted.text, text_path=path, limit=wanted.limit, argv=argv)
