"""GLM-5.3-Flash: linear attention beside sparse attention (glm5-next), by the engine's own counts.

llama-fit-params of llama.cpp 0c1e57098bba on the CPU, without repacking, for a file of the
published dimensions. tests/data/cpu-compute.csv has the buffers of its server.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from corral.fit.estimate import Estimate, estimate
from corral.fit.gguf import Header
from corral.fit.kv_cache import layer_bytes
from corral.fit.model import ModelFile, model_file
from tests.unit.fit.test_host import candidate, fit, refusal
from tests.unit.fit_samples import (
    H200_MIB,
    HYBRID,
    LLAMA_CPP,
    MIB,
    header,
    model,
    placement,
    profile,
    shape_of,
)

BLOCKS, PERIOD = 45, 4


def on_cpu(**asked: Any) -> Estimate:
    nowhere = placement(gpu_layers=0)
    return estimate(model(HYBRID), profile(**asked), nowhere, gpu_memory_mib=[])


@pytest.mark.parametrize(
    ("tokens_per_slot", "slots", "kv_type", "mib"),
    [(32768, 1, "f16", 761), (131072, 1, "q8_0", 1454), (16384, 4, "q8_0", 1236)],
)
def test_caches_states_and_weights_are_those_that_the_engine_counts(
    tokens_per_slot: int, slots: int, kv_type: str, mib: int
) -> None:
    found = on_cpu(
        context_tokens_per_slot=tokens_per_slot, slots=slots, kv_type_k=kv_type, kv_type_v=kv_type
    )
    assert found.unknown == ""
    assert int(found.host.kv_bytes / MIB) == mib
    assert int(found.host.weights_bytes / MIB) == 184235


def test_a_state_does_not_grow_with_the_context_and_there_is_one_for_each_slot() -> None:
    shape, state = shape_of(HYBRID), 64 * 128 * (3 * 3 + 128) * 4
    for tokens, slots in ((4096, 1), (65536, 1), (65536, 4)):
        asked = profile(context_tokens_per_slot=tokens, slots=slots, kv_type_k="q8_0")
        assert layer_bytes(shape, asked, LLAMA_CPP, block=0) == state * slots


def test_every_fourth_block_attends_with_an_indexer_of_its_own() -> None:
    shape = shape_of(HYBRID)
    attending = tuple(block % PERIOD == PERIOD - 1 for block in range(BLOCKS))
    assert shape.indexer
    assert shape.recurrent
    assert shape.indexer.in_blocks == attending
    assert shape.recurrent.in_blocks == tuple(not one for one in attending)
    assert shape.attending_block == PERIOD - 1
    assert (shape.indexer.width, shape.indexer.key, shape.streams) == (384, 128, 4)


def test_a_file_may_share_indexers_between_blocks() -> None:
    whole, key = header(HYBRID), "glm5-next.attention.indexer.types"
    shared = replaced(whole, {key: tuple(int(block == PERIOD - 1) for block in range(BLOCKS))})
    assert shared.shape
    assert shared.shape.indexer
    assert sum(shared.shape.indexer.in_blocks) == 1


def replaced(whole: Header, keys: dict[str, int | tuple[int, ...]]) -> ModelFile:
    return model_file([replace(whole, metadata={**whole.metadata, **keys})])


def test_states_are_on_the_devices_of_their_blocks() -> None:
    found = estimate(model(HYBRID), profile(), placement(), gpu_memory_mib=[H200_MIB] * 2)
    assert all(gpu.kv_bytes for gpu in found.gpus)
    kept = estimate(model(HYBRID), profile(kv_on_gpu=False), placement(), gpu_memory_mib=[H200_MIB])
    assert (kept.gpus[0].kv_bytes, int(kept.host.kv_bytes / MIB)) == (0, 761)


def test_drafts_with_its_mtp_block_are_refused_as_the_server_would_end() -> None:
    error = refusal(candidate(of=model(HYBRID), mtp_draft_tokens=1), memory_mib=10**6)
    assert "llama.cpp cannot draft with the MTP block of glm5-next yet" in error.what
    assert fit(candidate(of=model(HYBRID)), memory_mib=10**6)


def test_ik_does_not_know_it() -> None:
    error = refusal(candidate(of=model(HYBRID), kind="ik_llama.cpp"), memory_mib=10**6)
    assert error.what == "ik_llama.cpp does not know the architecture glm5-next"
    assert error.next_step == 'choose engine = "llama.cpp"'
