"""Which device holds what: llama.cpp's rules for layers, overrides and several GPUs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import pytest

from corral.catalog.profile import SplitMode
from corral.fit.devices import HOST, Devices, UnknownDeviceError, devices, is_expert
from tests.unit.fit_samples import placement

BLOCKS = 7  # and the output layer


def rules(
    *,
    gpus: Sequence[int] = (1,),
    blocks: int = BLOCKS,
    mode: SplitMode | None = None,
    main_gpu: int | None = None,
    **placed: Any,
) -> Devices:
    return devices(
        placement(**placed),
        blocks=blocks,
        gpu_memory_mib=gpus,
        split_mode=mode,
        main_gpu=main_gpu,
    )


@pytest.mark.parametrize(
    ("layers", "on_gpu"), [(0, 0), (1, 1), (3, 3), (8, 8), (9, 8), (99, 8), ("all", 8)]
)
def test_layers_go_to_the_gpu_from_the_last_one_and_the_output_layer_counts(
    layers: int | Literal["all"], on_gpu: int
) -> None:
    found = rules(gpu_layers=layers)
    assert found.of_blocks == (HOST,) * (8 - on_gpu) + (0,) * on_gpu
    assert found.has_host_blocks == (on_gpu < 8)


def test_tensors_follow_their_layer_and_embeddings_stay_on_the_host() -> None:
    found = rules(gpu_layers=2)
    names = ("token_embd.weight", "blk.5.attn_q.weight", "blk.6.ffn_norm.weight")
    assert [found.of_tensor(name) for name in names] == [HOST, HOST, 0]
    assert {found.of_tensor(f"output{rest}.weight") for rest in ("", "_norm")} == {0}
    assert rules(gpu_layers=0).of_tensor("output.weight") == HOST


@pytest.mark.parametrize(
    ("split", "counts"),
    [
        ((3, 1), [6, 2]),
        ((1, 1), [4, 4]),
        ((1, 2), [3, 5]),  # 8/3 layers: the third begins before the bound
        ((1, 0), [8, 0]),
        ((0, 1), [0, 8]),
        ((1,), [8, 0]),
    ],
)
def test_a_layer_that_begins_on_a_bound_is_the_next_gpus(
    split: tuple[float, ...], counts: list[int]
) -> None:
    found = rules(gpus=(10, 10), tensor_split=split)
    assert [found.of_blocks.count(gpu) for gpu in (0, 1)] == counts
    assert found.of_blocks == tuple(sorted(found.of_blocks))
    assert found.of_output == found.of_blocks[7]


@pytest.mark.parametrize("gpus", [2, 3, 5, 6, 7, 10])
def test_equal_gpus_get_as_many_layers_each(gpus: int) -> None:
    """Added up as shares, three fifths come out above 30 layers of 50."""
    found = rules(gpus=(24576,) * gpus, blocks=10 * gpus - 1, tensor_split=(1.0,) * gpus)
    assert Counter(found.of_blocks) == dict.fromkeys(range(gpus), 10)


def test_a_bound_is_as_exact_as_the_engines_and_no_more() -> None:
    """In 32 bits these shares are a half each, in 64 the first is a little more."""
    found = rules(gpus=(10, 10), tensor_split=(100000001.0, 100000000.0))
    assert [found.of_blocks.count(gpu) for gpu in (0, 1)] == [4, 4]


def test_without_a_split_gpus_share_by_their_memory() -> None:
    found = rules(gpus=(30, 10))
    assert found.shares == (0.75, 0.25)
    assert [found.of_blocks.count(gpu) for gpu in (0, 1)] == [6, 2]


def test_fewer_layers_than_all_are_divided_the_same_way() -> None:
    found = rules(gpus=(10, 10), gpu_layers=4)
    assert found.of_blocks == (HOST, HOST, HOST, HOST, 0, 0, 1, 1)


@pytest.mark.parametrize(("main_gpu", "only"), [(None, 0), (0, 0), (1, 1)])
def test_without_splitting_one_gpu_has_all_layers(main_gpu: int | None, only: int) -> None:
    found = rules(gpus=(10, 10), mode="none", main_gpu=main_gpu)
    assert set(found.of_blocks) == {only}
    assert not found.cuts_matrices


def test_a_main_gpu_means_nothing_where_layers_are_divided() -> None:
    assert rules(gpus=(10, 10), main_gpu=1).of_blocks == rules(gpus=(10, 10)).of_blocks


@pytest.mark.parametrize(
    ("mode", "gpus", "cuts"),
    [
        ("row", 2, True),
        ("tensor", 2, True),
        ("graph", 2, True),
        ("row", 1, False),
        ("layer", 2, False),
        (None, 2, False),
    ],
)
def test_some_modes_cut_matrices_among_several_gpus(
    mode: SplitMode | None, gpus: int, cuts: bool
) -> None:
    assert rules(gpus=(10,) * gpus, mode=mode).cuts_matrices is cuts


def test_the_first_override_that_is_found_in_a_name_counts() -> None:
    overrides = ("blk\\.[01]\\.ffn=CUDA1", "ffn_up=CPU", "token_embd=CUDA0")
    found = rules(gpus=(10, 10), tensor_split=(1, 0), tensor_overrides=overrides)
    names = ("blk.1.ffn_up.weight", "blk.2.ffn_up.weight", "blk.2.ffn_down.weight")
    assert [found.of_tensor(name) for name in names] == [1, HOST, 0]
    assert found.of_tensor("token_embd.weight") == 0


@pytest.mark.parametrize("buffer", ["CPU", "CUDA_Host"])
def test_both_buffers_of_the_host_are_the_host(buffer: str) -> None:
    assert rules(tensor_overrides=(f"ffn={buffer}",)).of_tensor("blk.0.ffn_up.weight") == HOST


@pytest.mark.parametrize("buffer", ["CUDA2", "CUDA", "Vulkan0", "cpu"])
def test_an_override_to_a_buffer_that_is_not_there_is_told(buffer: str) -> None:
    with pytest.raises(UnknownDeviceError) as caught:
        rules(gpus=(10, 10), tensor_overrides=(f"exps={buffer}",))
    text = f"tensor_overrides names the buffer {buffer}, known here: CPU, CUDA0, CUDA1"
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("name", "routed"),
    [
        ("blk.3.ffn_up_exps.weight", True),
        ("blk.12.ffn_gate_up_exps.weight", True),
        ("blk.3.ffn_down_chexps.weight", True),
        ("blk.3.ffn_gate_shexp.weight", False),
        ("blk.3.ffn_gate_inp.weight", False),
        ("blk.3.exp_probs_b.bias", False),
        ("blk.3.ffn_up.weight", False),
    ],
)
def test_routed_experts_are_known_by_their_names(name: str, routed: bool) -> None:
    assert is_expert(name) is routed
    assert rules(experts_on_cpu=True).of_tensor(name) == (HOST if routed else 0)


def test_cpu_moe_layers_keep_the_experts_of_the_first_blocks() -> None:
    found = rules(cpu_moe_layers=2)
    kept = [found.of_tensor(f"blk.{block}.ffn_up_exps.weight") for block in range(4)]
    assert kept == [HOST, HOST, 0, 0]
    assert found.of_tensor("blk.0.attn_q.weight") == 0


def test_cpu_moe_layers_come_before_overrides() -> None:
    """As llama-server gets them: each is one more override, in the order of the words."""
    found = rules(cpu_moe_layers=1, tensor_overrides=("exps=CUDA0",), gpu_layers=1)
    assert found.of_tensor("blk.0.ffn_up_exps.weight") == HOST
    assert found.of_tensor("blk.1.ffn_up_exps.weight") == 0
