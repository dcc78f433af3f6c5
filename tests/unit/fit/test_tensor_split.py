"""Split mode tensor of llama.cpp: the parts of the GPUs, by figures of its source."""

from __future__ import annotations

import pytest

from corral.fit.estimate import estimate
from corral.fit.tensor_split import TensorSplit, tensor_split
from tests.unit.fit_samples import (
    AIR,
    DENSE,
    H200_MIB,
    MIB,
    model,
    placement,
    profile,
    shape_of,
)


def parts(name: str, *shares: float) -> TensorSplit:
    return tensor_split(model(name).tensors, shape_of(name), shares)


def test_experts_are_divided_by_128_columns_and_who_gets_more_changes() -> None:
    """1408 columns: 640 and 768."""
    found = parts(AIR, 0.5, 0.5)
    for name in ("ffn_up_exps", "ffn_gate_exps", "ffn_down_exps"):
        assert found.of_tensor(f"blk.2.{name}.weight") == (640 / 1408, 768 / 1408)
        assert found.of_tensor(f"blk.3.{name}.weight") == (768 / 1408, 640 / 1408)


@pytest.mark.parametrize(
    "name",
    ["blk.1.ffn_up_shexp.weight", "blk.1.ffn_gate_inp.weight", "blk.1.attn_norm.weight"],
)
def test_shared_experts_routers_and_norms_are_on_every_gpu(name: str) -> None:
    assert parts(AIR, 0.5, 0.5).of_tensor(name) == (1, 1)


def test_attention_is_divided_by_its_kv_heads() -> None:
    found = parts(AIR, 0.7, 0.3)
    assert found.of_tensor("blk.0.attn_q.weight") == (5 / 8, 3 / 8)
    assert found.of_tensor("blk.1.attn_k.bias") == (6 / 8, 2 / 8)
    assert found.of_cache(1) == (6 / 8, 2 / 8)
    assert found.of_tensor("output.weight") == (0.7, 0.3)
    assert parts(DENSE, 0.5, 0.5).of_cache(0) == (0.5, 0.5)


def test_three_gpus_share_without_rest_and_without_loss() -> None:
    found = parts(AIR, *(1 / 3,) * 3)
    for block in range(1, 4):
        name = f"blk.{block}.ffn_down_exps.weight"
        assert sum(found.of_tensor(name)) == pytest.approx(1)
        assert sorted(found.of_tensor(name)) == [384 / 1408, 512 / 1408, 512 / 1408]


def test_a_mode_that_divides_all_has_more_weights_than_one_that_divides_layers() -> None:
    """Shared experts of 45 blocks and routers, twice; two H200s held 138 MiB apart."""
    tensor, layer = (
        estimate(
            model(AIR), profile(split_mode=mode), placement(), gpu_memory_mib=[H200_MIB] * 2
        ).gpus
        for mode in ("tensor", "layer")
    )
    more = sum(gpu.weights_bytes for gpu in tensor) - sum(gpu.weights_bytes for gpu in layer)
    assert more / MIB == pytest.approx(45 * (3 * 5.844 + 2), abs=4)
    assert abs(tensor[0].weights_bytes - tensor[1].weights_bytes) / MIB == pytest.approx(138, abs=1)
