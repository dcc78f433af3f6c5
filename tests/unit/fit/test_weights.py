"""Bytes of weights per device, of one shard or several."""

from __future__ import annotations

from typing import Any

import pytest

from corral.catalog.profile import SplitMode
from corral.fit.devices import HOST, Devices, devices
from corral.fit.gguf import Header, Tensor
from corral.fit.model import ModelFile, model_file
from corral.fit.weights import largest_host_tensors_bytes, loaded, weights_bytes
from tests.unit.fit_samples import AIR, header, model, placement, tensor, unknown_model

EMBEDDINGS = tensor("token_embd.weight", 64, 10)  # 2560 bytes
OUTPUT = tensor("output.weight", 64, 10, type_id=1)  # 1280 bytes
BLOCKS = [tensor(f"blk.{block}.attn_q.weight", 64, 4) for block in range(3)]  # 1024 bytes each


def rules(gpus: int = 1, mode: SplitMode | None = None, **placed: Any) -> Devices:
    return devices(placement(**placed), blocks=3, gpu_memory_mib=[1] * gpus, split_mode=mode)


def test_each_tensor_counts_where_it_is() -> None:
    held = weights_bytes([EMBEDDINGS, *BLOCKS, OUTPUT], rules(gpu_layers=2))
    assert held == {HOST: 2560 + 2 * 1024, 0: 1024 + 1280}


def test_embeddings_that_are_the_output_as_well_count_twice() -> None:
    assert weights_bytes([EMBEDDINGS, *BLOCKS], rules()) == {HOST: 2560, 0: 3 * 1024 + 2560}


def test_embeddings_count_once_where_the_output_stays_with_them() -> None:
    assert weights_bytes([EMBEDDINGS, *BLOCKS], rules(gpu_layers=0)) == {HOST: 2560 + 3 * 1024}


def test_the_output_layer_is_the_last_gpus() -> None:
    held = weights_bytes([EMBEDDINGS, *BLOCKS, OUTPUT], rules(gpus=2))
    assert held == {HOST: 2560, 0: 2 * 1024, 1: 1024 + 1280}


@pytest.mark.parametrize("mode", ["row", "tensor"])
def test_matrices_are_cut_and_vectors_are_not(mode: SplitMode) -> None:
    vector = tensor("blk.0.attn_norm.weight", 64)
    held = weights_bytes([EMBEDDINGS, vector, *BLOCKS], rules(2, mode, tensor_split=(3, 1)))
    matrices = 3 * 1024 + 2560
    assert held == {HOST: 2560, 0: matrices * 3 // 4 + 256, 1: matrices // 4}


def test_in_mode_graph_each_gpu_has_vectors_and_routers_and_the_last_the_output() -> None:
    each = [tensor("blk.0.attn_norm.weight", 64), tensor("blk.1.ffn_gate_inp.weight", 64, 2)]
    whole = [tensor("output_norm.weight", 64), OUTPUT]
    held = weights_bytes([EMBEDDINGS, *each, *BLOCKS, *whole], rules(2, "graph"))
    cut, own = 3 * 1024 // 2, 256 + 512
    assert held == {HOST: 2560, 0: cut + own, 1: cut + own + 256 + 1280}


def test_what_an_override_keeps_on_the_host_is_not_cut() -> None:
    held = weights_bytes([*BLOCKS, OUTPUT], rules(2, "row", tensor_overrides=("attn_q=CPU",)))
    assert held == {HOST: 3 * 1024, 0: 640, 1: 640}


def test_mtp_blocks_are_loaded_only_to_draft_with_them() -> None:
    everything = loaded(BLOCKS, layers=2, mtp=True)
    assert (everything, loaded(BLOCKS, layers=2, mtp=False)) == (BLOCKS, BLOCKS[:2])
    assert loaded([EMBEDDINGS, OUTPUT], layers=1, mtp=False) == [EMBEDDINGS, OUTPUT]


def test_the_largest_tensors_on_the_host_are_told_apart() -> None:
    experts = [tensor(f"blk.{block}.ffn_up_exps.weight", 64, 4, 8) for block in range(3)]
    found = rules(gpu_layers=1, tensor_overrides=("blk.2=CUDA0",))
    tensors = [EMBEDDINGS, OUTPUT, *BLOCKS, *experts]
    assert largest_host_tensors_bytes(tensors, found) == (8 * 1024, 1024)
    assert largest_host_tensors_bytes([EMBEDDINGS, OUTPUT], rules(gpu_layers=0)) == (0, 0)


def test_gate_and_up_are_copied_together_where_they_are_one_operation() -> None:
    names = ("up", "gate", "down")
    experts = [
        tensor(f"blk.0.ffn_{name}_exps.weight", 64, size)
        for name, size in zip(names, (4, 4, 6), strict=True)
    ]
    found = rules(experts_on_cpu=True)
    assert largest_host_tensors_bytes(experts, found) == (6 * 256, 0)
    assert largest_host_tensors_bytes(experts, found, fused=True) == (8 * 256, 0)


def shards(tensors: tuple[Tensor, ...], count: int) -> ModelFile:
    """The model cut into shards; only the first has the keys."""
    keys = header(AIR).metadata
    parts = [tensors[n::count] for n in range(count)]
    return model_file([Header(3, {} if n else keys, part, 32, 32) for n, part in enumerate(parts)])


def test_several_shards_are_one_model() -> None:
    whole, cut = model(AIR), shards(model(AIR).tensors, 3)
    assert cut.shape == whole.shape
    assert sorted(t.name for t in cut.tensors) == sorted(t.name for t in whole.tensors)
    air = devices(placement(), blocks=whole.blocks, gpu_memory_mib=[1])
    assert weights_bytes(cut.tensors, air) == weights_bytes(whole.tensors, air)


def test_the_bytes_of_a_file_are_those_of_its_shards() -> None:
    first, second = (Header(3, {}, (one,), 4096, 32) for one in (EMBEDDINGS, OUTPUT))
    assert model_file([first, second]).file_bytes == 4096 + 2560 + 4096 + 1280


def test_blocks_of_an_unknown_model_are_counted_by_the_names_of_its_tensors() -> None:
    assert (unknown_model().blocks, unknown_model().layers) == (47, 47)
    assert (model(AIR).blocks, model(AIR).layers) == (47, 46)
    odd = model_file([Header(3, {}, (EMBEDDINGS, tensor("blk.x.y", 1)), 32, 32)])
    assert odd.blocks == 0
