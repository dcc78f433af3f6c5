"""Engines: one folder for each kind, and their registry."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from corral.catalog.entries import EngineKind
from corral.catalog.profile import Profile
from corral.engines import ik_llama_cpp, llama_cpp, vllm
from corral.engines.base import Engine, KvPair, Problem, Series, WeightsFormat
from corral.errors import CorralError
from corral.plan.placement import ResolvedPlacement
from corral.schema import did_you_mean

__all__ = [
    "Engine",
    "KvPair",
    "Problem",
    "engine_module",
    "kinds",
    "problems",
    "reading",
    "refuse_impossible",
    "register",
    "resolve_placement",
    "series",
]

_ENGINES: dict[EngineKind, Engine] = {}


def register(engine: Engine) -> None:
    """Make an engine known under its kind."""
    _ENGINES[engine.kind] = engine


register(llama_cpp.ENGINE)
register(ik_llama_cpp.ENGINE)
register(vllm.ENGINE)


def kinds() -> Collection[EngineKind]:
    """All registered kinds."""
    return _ENGINES.keys()


def engine_module(kind: EngineKind) -> Engine:
    """The engine of a kind. Raises CorralError for an unknown kind."""
    if kind in _ENGINES:
        return _ENGINES[kind]
    what = f'unknown kind "{kind}"{did_you_mean(kind, _ENGINES)}'
    step = f"name one of {', '.join(_ENGINES)}"
    raise CorralError("catalog/engines/", what, step)


def series() -> list[Series]:
    """The series of all engines, each once, in the order of their registration."""
    return list(dict.fromkeys(engine.series for engine in _ENGINES.values()))


def reading(form: WeightsFormat) -> list[EngineKind]:
    """The kinds that load weights of this format, in the order of their registration."""
    return [kind for kind, engine in _ENGINES.items() if engine.weights == form]


def problems(kind: EngineKind, profile: Profile, *, gpus: int) -> list[Problem]:
    """Everything in a profile that an engine cannot do.

    + gpus: number of GPUs of the instance, 0 for none
    """
    own = engine_module(kind).problems(profile, gpus=gpus)
    return [*_without_effect(kind, profile), *own]


def _without_effect(kind: EngineKind, profile: Profile) -> Iterator[Problem]:
    """Keys that are set and have a flag in other engines, but not in this one."""
    ours = engine_module(kind).flags.keys
    others = {k: one.flags.keys - ours for k, one in _ENGINES.items() if k != kind}
    for key, info in type(profile).model_fields.items():
        having = [other for other, keys in others.items() if key in keys]
        if having and getattr(profile, key) != info.default:
            choices = " or ".join(f'"{other}"' for other in having)
            step = f"remove {key} or choose engine = {choices}"
            yield Problem(f"{key} is supported by {' and '.join(having)} only", step)


def refuse_impossible(
    profile: Profile, *, engine: str, kind: EngineKind, gpus: int, where: str
) -> None:
    """Raise CorralError with everything that the engine cannot do; ``where`` names the profile."""
    refused = problems(kind, profile, gpus=gpus)
    if refused:
        raise CorralError(
            f"{where}, engine {engine}",
            "; ".join(problem.what for problem in refused),
            "; ".join(_unique(problem.next_step for problem in refused)),
        )


def _unique(texts: Iterable[str]) -> Iterable[str]:
    return dict.fromkeys(texts)


def resolve_placement(profile: Profile, *, gpus: int) -> ResolvedPlacement:
    """The placement of a profile, without reading the model; ``gpus``: 0 for none.

    ``auto`` is decided in corral.fit, from the model's header; here it keeps all experts in host
    memory.
    """
    if gpus == 0 or profile.placement == "cpu":
        return ResolvedPlacement(gpu_layers=0)
    return ResolvedPlacement(
        gpu_layers=profile.gpu_layers,
        experts_on_cpu=profile.placement in ("experts-on-cpu", "auto"),
        cpu_moe_layers=profile.cpu_moe_layers or 0,
        tensor_overrides=profile.tensor_overrides,
        tensor_split=profile.tensor_split or (),
    )
