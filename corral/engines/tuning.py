"""What `corral tune` may change of a profile; each engine names its own dimensions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from corral.catalog.profile import Profile
from corral.schema import Frozen

Placing = Literal["auto", "whole-layers", "one-more-layer", "last-layers"]
"""Placements that follow from the model's header and the memory, see corral.fit.placings."""


class Machine(Frozen):
    """The part of a host and a model that decides what is worth a try.

    + cores, threads: of the processor; + gpus: of the instance
    + experts, drafts: whether the model has experts, and an MTP block
    """

    cores: int
    threads: int
    numa_nodes: int = 1
    gpus: int = 0
    experts: bool = False
    drafts: bool = False


class Choice(Frozen):
    """One value of a dimension.

    + keys: of the profile, None for the default; + placing: these follow from the fit as well
    """

    label: str
    keys: dict[str, Any] = {}
    placing: Placing | None = None


class Dimension(Frozen):
    """One subject to tune; ``choices``: other than the current one, which ``current`` names."""

    name: str
    current: str
    choices: tuple[Choice, ...]


def dimension(name: str, current: object, choices: Iterable[Choice]) -> Iterator[Dimension]:
    """A dimension without the current choice; none where nothing is left."""
    others = tuple(one for one in choices if one.label != str(current))
    if others:
        yield Dimension(name=name, current=str(current), choices=others)


def numbers(
    name: str, key: str, current: int | None, values: Iterable[int], *, unset: str = "unset"
) -> Iterator[Dimension]:
    """A dimension of one key with numbers."""
    choices = (Choice(label=str(n), keys={key: n}) for n in sorted({n for n in values if n > 0}))
    yield from dimension(name, unset if current is None else current, choices)


def kv_types(profile: Profile) -> Iterator[Dimension]:
    """KV cache types that the profile allows, for keys and values alike."""
    own = profile.kv_type_k, profile.kv_type_v
    choices = (
        Choice(label=one, keys={"kv_type_k": one, "kv_type_v": one})
        for one in profile.tune_kv_types
    )
    yield from dimension("KV types", "/".join(dict.fromkeys(own)), choices)


def drafts(profile: Profile, machine: Machine, most: int) -> Iterator[Dimension]:
    """Tokens that the MTP block drafts, and none."""
    if not machine.drafts or profile.draft_model:
        return
    none = Choice(label="none", keys={"mtp_draft_tokens": None})
    some = (Choice(label=str(n), keys={"mtp_draft_tokens": n}) for n in range(1, most + 1))
    yield from dimension("MTP drafts", profile.mtp_draft_tokens or "none", (none, *some))


def shares(cores: int) -> tuple[int, ...]:
    """A quarter, half, three quarters and all of the cores."""
    return tuple(dict.fromkeys(max(1, cores * n // 4) for n in (1, 2, 3, 4)))


# Keys that a placement of tune decides, at their defaults.
NO_PLACEMENT: Mapping[str, Any] = {
    "gpu_layers": None, "cpu_moe_layers": None, "tensor_overrides": None, "tensor_split": None,
}  # fmt: skip
