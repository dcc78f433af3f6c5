"""How the ranks of a server divide the work: tensor, data and expert parallelism."""

from __future__ import annotations

from dataclasses import dataclass

from corral.model_files.config import ModelDimensions


@dataclass(frozen=True, slots=True)
class Ranks:
    """One rank is one GPU; source: parallel_state.py and FusedMoEParallelConfig of vLLM 0.32.

    + tensor: ranks that divide each layer; + data: copies of attention and dense layers
    + experts_whole: expert parallelism, each rank has whole experts
    """

    tensor: int = 1
    data: int = 1
    experts_whole: bool = False

    @property
    def count(self) -> int:
        """All ranks."""
        return self.tensor * self.data

    @property
    def expert_owners(self) -> int:
        """Ranks among which whole experts are distributed."""
        return self.count if self.experts_whole else 1

    @property
    def expert_cuts(self) -> int:
        """Ranks that divide each expert: data parallelism has no copies of experts."""
        return 1 if self.experts_whole else self.count


def undivided(model: ModelDimensions, ranks: Ranks) -> str:
    """What cannot be divided among the ranks, in one sentence; empty where all can be."""
    parts = ranks.tensor
    if model.num_attention_heads % parts:
        return f"{model.num_attention_heads} attention heads cannot be divided by {parts} GPUs"
    if not model.latent and model.kv_heads % parts and parts % model.kv_heads:
        return f"{model.kv_heads} heads of K and V cannot be divided among {parts} GPUs"
    if model.intermediate_size % parts:
        return f"intermediate_size {model.intermediate_size} cannot be divided by {parts} GPUs"
    if not model.n_routed_experts:
        return "expert_parallel needs a model with experts" if ranks.experts_whole else ""
    inner, cuts = model.moe_intermediate_size, ranks.expert_cuts
    block = model.block_rows
    if inner % (cuts * block):
        of = f" in blocks of {block}" if block > 1 else ""
        step = "expert_parallel keeps them whole"
        return f"the {inner} rows of each expert cannot be divided by {cuts} GPUs{of}: {step}"
    return ""
