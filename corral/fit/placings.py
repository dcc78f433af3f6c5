"""Placements beside the one of placement = "auto", with as few experts in host memory."""

from __future__ import annotations

from corral.engines.tuning import Placing
from corral.fit.devices import block_of, is_expert
from corral.fit.model import ModelFile
from corral.plan.placement import ResolvedPlacement

_EXPERTS = "up|down|gate|gate_up"


def placing(wanted: Placing, auto: ResolvedPlacement, model: ModelFile) -> ResolvedPlacement | None:
    """A placement near ``auto``, which was decided for one GPU; None where there is none.

    + wanted: whole-layers: without a part of a layer; one-more-layer: room for larger buffers;
      last-layers: those of the end instead of the beginning
    """
    if auto.gpu_layers != "all" or auto.tensor_split:
        return None
    whole = auto.cpu_moe_layers + (1 if auto.tensor_overrides else 0)
    if wanted == "auto" or not whole:
        return None
    blocks = expert_blocks(model)
    if wanted == "last-layers":
        # The number of layers in front of the first experts counts, too.
        count = sum(block < whole for block in blocks)
        listed = "|".join(map(str, blocks[len(blocks) - count :]))
        pattern = rf"blk\.({listed})\.ffn_({_EXPERTS})_exps=CPU"
        return ResolvedPlacement(gpu_layers="all", tensor_overrides=(pattern,))
    count = whole + (1 if wanted == "one-more-layer" else 0)
    if count > blocks[-1] + 1 or (wanted == "whole-layers" and not auto.tensor_overrides):
        return None
    return ResolvedPlacement(gpu_layers="all", cpu_moe_layers=count)


def expert_blocks(model: ModelFile) -> tuple[int, ...]:
    """Blocks with routed experts, in order; not those that draft."""
    named = {block_of(t.name) or 0 for t in model.tensors if is_expert(t.name)}
    return tuple(sorted(block for block in named if block < model.layers))
