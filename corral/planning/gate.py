"""What a server must prove before its generation is kept, from its profile."""

from __future__ import annotations

import hashlib

from corral.catalog.profile import Profile
from corral.engines import engine_module
from corral.errors import CorralError
from corral.plan.gate import GatePlan, PerplexityGate, SpeedGate
from corral.plan.placement import ResolvedPlacement
from corral.plan.release import ReleasePlan
from corral.planning.request import Requested

_SHORT_TOKENS = 512
# The slowest GPU hosts read so much in half a minute, processors a quarter of it: a run of all
# lengths and the usual three of them end in about two minutes.
_LONG_TOKENS = 8192
_LONG_TOKENS_ON_CPU = 2048


def plan_gate(
    asked: Requested,
    release: ReleasePlan,
    *,
    model: str,
    placement: ResolvedPlacement,
    generation_folder: str,
) -> GatePlan:
    """The gate of an instance; ``model``: its first shard. Raises CorralError.

    Nothing here makes a new generation: no server restarts because its gate has changed.
    """
    profile = asked.profile
    _refuse_long(asked)
    return GatePlan(
        golden=profile.golden,
        speed=_speed(profile, placement) if engine_module(asked.kind).tells_speed else None,
        perplexity=_perplexity(asked, release, model, placement, generation_folder),
        soak_seconds=profile.soak_seconds,
    )


def _refuse_long(asked: Requested) -> None:
    """Prompt and reply must fit into a slot."""
    context, speed = asked.profile.context_tokens_per_slot, asked.profile.speed
    longest = max((golden.max_tokens for golden in asked.profile.golden), default=0)
    if longest >= context:
        what = f"golden: max_tokens {longest} does not fit into {context} context tokens a slot"
        raise CorralError(f"{asked.where}: profile {asked.spec.profile}", what, "lower max_tokens")
    measured = max(speed.prompt_tokens, default=0) + speed.generated_tokens
    if measured > context and not speed.off:
        what = f"speed: {measured} tokens do not fit into {context} context tokens a slot"
        step = "lower prompt_tokens or generated_tokens in [speed]"
        raise CorralError(f"{asked.where}: profile {asked.spec.profile}", what, step)


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
    """Short, and a quarter of a slot's context within what can be read in time."""
    context, generated = profile.context_tokens_per_slot, profile.speed.generated_tokens
    long = max(1, min(context // 4, cap, context - generated))
    return min(_SHORT_TOKENS, long), long


def _perplexity(
    asked: Requested,
    release: ReleasePlan,
    model: str,
    placement: ResolvedPlacement,
    generation_folder: str,
) -> PerplexityGate | None:
    wanted, text = asked.profile.perplexity, asked.reference
    if wanted is None or text is None:
        return None
    module = engine_module(asked.kind)
    program = module.perplexity_program
    if program is None:
        what = f"profile {asked.spec.profile} asks for perplexity, {asked.kind} cannot tell it"
        raise CorralError(asked.where, what, "remove [perplexity] from the profile")
    programs = release.artifact.programs
    if programs is not None and program not in programs:
        what = f"profile {asked.spec.profile} asks for perplexity, engine {asked.engine} has none"
        step = f'add "{program}" to targets in catalog/engines/{asked.engine}.toml'
        raise CorralError(asked.where, what, step)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    path = f"{generation_folder}/reference-{digest}.txt"
    words = module.perplexity_words(
        asked.profile,
        placement,
        program=f"{release.folder}/bin/{program}",
        model=model,
        text=path,
    )
    return PerplexityGate(text=wanted.text, text_path=path, limit=wanted.limit, argv=words)
