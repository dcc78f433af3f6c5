"""Keys of a profile without effect on a model, by its header."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from corral.catalog.profile import Profile
from corral.fit.shape import Shape


class NoEffect(NamedTuple):
    """A key that is set, and why it does nothing."""

    key: str
    why: str

    def __str__(self) -> str:
        return f"{self.key} has no effect: {self.why}"


def without_effect(profile: Profile, shape: Shape) -> list[NoEffect]:
    """The keys that do nothing for a model of this shape."""
    return [*_attention(profile, shape), *_experts(profile, shape)]


def _attention(profile: Profile, shape: Shape) -> Iterator[NoEffect]:
    if shape.mla:
        return
    if profile.mla_mode is not None:
        yield NoEffect("mla_mode", f"{shape.arch} has no latent attention")
    if profile.attention_max_batch_mib is not None and profile.flash_attention:
        why = f"{shape.arch} has no latent attention, and flash_attention holds no scores"
        yield NoEffect("attention_max_batch_mib", why)


def _experts(profile: Profile, shape: Shape) -> Iterator[NoEffect]:
    if shape.experts_used:
        return
    why = f"the model ({shape.arch}) has no experts"
    if profile.cpu_moe_layers is not None:
        yield NoEffect("cpu_moe_layers", why)
    if profile.fused_moe is not None:
        yield NoEffect("fused_moe", why)
    if profile.placement == "experts-on-cpu":
        yield NoEffect('placement = "experts-on-cpu"', why)
