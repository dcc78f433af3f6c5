"""Several instances on the GPUs of one host: summed, placed, refused by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from corral.catalog.entries import EngineKind
from corral.engines import resolve_placement
from corral.errors import CorralError
from corral.fit.estimate import DRIVER_MIB
from corral.fit.host import Candidate, GpuName, Placed, even_split, fit_host
from corral.fit.model import ModelFile
from corral.plan.placement import DeviceNeed
from tests.unit.fit_samples import (
    A100_MIB,
    AIR,
    DENSE,
    FLASH,
    model,
    placement,
    profile,
    shape_of,
    unknown_model,
)

RTX_3090_TI_MIB = 24564


def candidate(
    name: str = "a",
    of: ModelFile | None = None,
    *,
    gpus: tuple[GpuName, ...] = (0,),
    kind: EngineKind = "llama.cpp",
    placed: dict[str, Any] | None = None,
    **asked: Any,
) -> Candidate:
    """Of the dense model; ``asked`` are keys of its profile."""
    return Candidate(
        name=name,
        label=f"profile {name}-profile",
        kind=kind,
        profile=profile(**asked),
        placement=placement(**placed or {}),
        gpus=gpus,
        model=of or model(DENSE),
    )


def headless(**asked: Any) -> Candidate:
    """An instance whose hub did not answer."""
    return Candidate(
        name="a",
        label="profile p",
        kind="llama.cpp",
        profile=profile(**asked),
        placement=placement(),
        gpus=(0,),
        model=None,
        unknown="http://hub: the hub does not answer",
    )


def fit(*candidates: Candidate, memory_mib: int | None = A100_MIB) -> dict[str, Placed]:
    return fit_host("gpu-01", candidates, memory_mib=memory_mib)


def refusal(*candidates: Candidate, memory_mib: int | None = A100_MIB) -> CorralError:
    with pytest.raises(CorralError) as caught:
        fit(*candidates, memory_mib=memory_mib)
    assert caught.value.where.startswith("gpu-01")
    assert caught.value.next_step
    return caught.value


def on(found: dict[str, Placed], name: str, gpu: int = 0) -> DeviceNeed:
    return found[name].need.gpus[gpu]


def test_two_instances_on_one_gpu_are_summed_and_refused_with_both_names() -> None:
    error = refusal(candidate("a"), candidate("b", slots=2), memory_mib=RTX_3090_TI_MIB)
    assert (error.where, error.what) == (
        "gpu-01",
        "GPU 0: weights and KV cache of its instances are 37.6 GiB (a 17.8, b 19.7), "
        "23.4 GiB is available",
    )
    assert error.next_step.startswith("give them other GPUs")


def test_each_on_a_gpu_of_its_own_they_fit() -> None:
    found = fit(candidate("a"), candidate("b", gpus=(1,)), memory_mib=RTX_3090_TI_MIB)
    assert on(found, "a") == on(found, "b")


@pytest.mark.parametrize("uuid", [0, "GPU-6f3a"])
def test_a_gpu_is_the_same_by_index_or_uuid(uuid: GpuName) -> None:
    both = (candidate("a", gpus=(uuid,)), candidate("b", gpus=("GPU-other", uuid)))
    assert refusal(*both, memory_mib=RTX_3090_TI_MIB).what.startswith(f"GPU {uuid}: weights")


def test_one_instance_that_is_too_large_is_told_what_else_to_do() -> None:
    error = refusal(candidate("a", context_tokens_per_slot=32768, slots=4), memory_mib=20000)
    assert error.what == (
        "GPU 0: weights and KV cache of its instances are 23.5 GiB (a 23.5), 18.9 GiB is available"
    )
    assert error.next_step.startswith('choose placement = "auto"')


def test_what_is_exact_refuses_and_what_is_bounded_does_not() -> None:
    exact_mib = on(fit(candidate()), "a").exact_mib
    assert on(fit(candidate(), memory_mib=exact_mib + DRIVER_MIB), "a").exact_mib == exact_mib
    refusal(candidate(), memory_mib=exact_mib + DRIVER_MIB - 1)


def test_auto_takes_what_the_others_leave() -> None:
    asked: dict[str, Any] = {"placement": "auto", "gpu_reserve_mib": 2000}
    found = fit(candidate("auto", model(AIR), **asked), candidate("fixed"))
    held_mib = on(found, "auto").total_mib + on(found, "fixed").total_mib
    left_mib = A100_MIB - DRIVER_MIB - 2000 - held_mib
    assert 0 <= left_mib < 1000
    assert list(found) == ["auto", "fixed"]
    alone = fit(candidate("auto", model(AIR), **asked))["auto"].placement
    assert found["auto"].placement.cpu_moe_layers > alone.cpu_moe_layers > 0


def test_auto_leaves_its_reserve() -> None:
    layers = [
        fit(candidate(of=model(AIR), placement="auto", gpu_reserve_mib=mib))["a"].placement
        for mib in (0, 10000)
    ]
    assert layers[0].cpu_moe_layers < layers[1].cpu_moe_layers


def test_several_with_auto_share_evenly_what_is_left() -> None:
    asked: dict[str, Any] = {"of": model(AIR), "placement": "auto"}
    found = fit(candidate("a", **asked), candidate("b", **asked), memory_mib=2 * A100_MIB)
    assert found["a"] == found["b"]
    held_mib = 2 * on(found, "a").total_mib
    assert 0 <= 2 * A100_MIB - DRIVER_MIB - 2 * 1024 - held_mib < 2000


def test_auto_puts_less_on_a_gpu_that_has_a_neighbour() -> None:
    asked: dict[str, Any] = {"of": model(AIR), "placement": "auto", "gpus": (0, 1)}
    found = fit(candidate("a", **asked), candidate("b", gpus=(1,)), memory_mib=A100_MIB)
    first_mib, second_mib = found["a"].placement.tensor_split
    assert first_mib - second_mib == on(found, "b").total_mib


@pytest.mark.parametrize(
    ("slots", "said"),
    [(9, "even with everything movable in host memory"), (12, "no GPU memory is left for it")],
)
def test_auto_for_which_too_little_is_left_says_so(slots: int, said: str) -> None:
    auto = candidate("auto", model(AIR), placement="auto")
    error = refusal(auto, candidate("fixed", slots=slots))
    assert error.where == "gpu-01/auto: profile auto-profile"
    assert said in error.what


def test_without_the_gpus_memory_only_auto_is_refused() -> None:
    assert on(fit(candidate(slots=100), memory_mib=None), "a").kv_mib > 100_000
    error = refusal(candidate(placement="auto"), memory_mib=None)
    assert error.what == 'placement = "auto" needs the memory of the GPUs'
    assert "memory_mib" in error.next_step


def test_without_a_header_only_auto_is_refused() -> None:
    need = fit(headless())["a"].need
    assert (need.gpus, need.host, need.unknown) == ((), None, headless().unknown)
    assert headless().unknown in refusal(headless(placement="auto")).what


def test_of_an_unknown_architecture_the_weights_are_added_up() -> None:
    strange = candidate("strange", unknown_model(), placed={"experts_on_cpu": True})
    found = fit(strange)["strange"].need
    assert found.unknown.startswith('architecture "glm9"')
    assert (found.gpus[0].weights_mib, found.gpus[0].kv_mib) == (7571, 0)
    assert "(strange 7.4, b 33.1)" in refusal(strange, candidate("b", slots=9)).what
    assert "glm9" in refusal(candidate("a", unknown_model(), placement="auto")).what


def test_latent_attention_with_unequal_types_is_refused_for_llama_cpp_only() -> None:
    unequal: dict[str, Any] = {"of": model(FLASH), "kv_type_k": "q8_0", "kv_type_v": "f16"}
    error = refusal(candidate(**unequal))
    assert error.where == "gpu-01/a: profile a-profile"
    assert error.what == "latent attention has one cache: kv_type_k q8_0, kv_type_v f16"
    assert error.next_step == 'set kv_type_v = "q8_0"'
    assert fit(candidate(kind="ik_llama.cpp", **unequal))
    assert fit(candidate(**{**unequal, "of": model(DENSE)}))


@pytest.mark.parametrize("kind", ["llama.cpp", "ik_llama.cpp"])
def test_drafts_without_an_mtp_block_are_refused_from_the_header(kind: EngineKind) -> None:
    drafting: dict[str, Any] = {"kind": kind, "mtp_draft_tokens": 2}
    error = refusal(candidate(of=model(DENSE), **drafting))
    assert error.what == "mtp_draft_tokens is set, but the model's file has no MTP block"
    assert error.next_step.startswith("remove mtp_draft_tokens")
    assert "no MTP block" in refusal(candidate(of=unknown_model(), **drafting)).what
    assert fit(candidate(of=model(AIR), placement="auto", **drafting))


def test_ik_drafts_with_blocks_of_glm4moe_only() -> None:
    drafting: dict[str, Any] = {"of": model(FLASH), "mtp_draft_tokens": 2}
    error = refusal(candidate(kind="ik_llama.cpp", **drafting))
    assert "ik_llama.cpp drafts with the MTP block of glm4moe only" in error.what
    assert fit(candidate(**drafting))


def test_an_architecture_that_mode_tensor_cannot_split_is_refused() -> None:
    split: dict[str, Any] = {"split_mode": "tensor", "gpus": (0, 1)}
    error = refusal(candidate(of=model(FLASH), **split))
    assert error.what == (
        'split_mode = "tensor": llama.cpp cannot do it for deepseek2, and would not start'
    )
    assert error.next_step == 'set split_mode = "layer" in the profile'
    unknown = replace(unknown_model(), arch="minimax-m2")
    assert "minimax-m2" in refusal(candidate(of=unknown, **split)).what
    assert fit(candidate(of=model(DENSE), **split))


def test_a_context_above_the_headers_needs_rope_scaling() -> None:
    assert refusal(candidate(context_tokens_per_slot=32769)).what == (
        "32769 context tokens a slot, but the model's header has 32768"
    )
    scaled = {"type": "yarn", "factor": 2.0}
    assert fit(candidate(context_tokens_per_slot=32769, rope_scaling=scaled))
    assert fit(candidate(context_tokens_per_slot=32768))


def test_an_impossible_override_or_cache_type_is_told_with_the_profile() -> None:
    error = refusal(candidate(placed={"tensor_overrides": ("exps=CUDA1",)}))
    assert error.where == "gpu-01/a: profile a-profile"
    assert "buffer CUDA1, known here: CPU, CUDA0" in error.what
    shape = replace(shape_of(DENSE), key_length=40, kv_heads=(1,) * 61)
    error = refusal(candidate(of=replace(model(DENSE), shape=shape), kv_type_k="q8_0"))
    assert error.where == "gpu-01/a: profile a-profile"
    assert error.what.startswith("the KV cache cannot have these types: it has rows of 40")


def test_without_gpus_all_is_on_the_host() -> None:
    need = fit(candidate(gpus=(), placement="cpu", placed={"gpu_layers": 0}))["a"].need
    assert need.gpus == ()
    assert need.host
    assert need.host.weights_mib > 16000
    assert fit(candidate(gpus=(), placement="auto", placed={"gpu_layers": 0}), memory_mib=None)


def test_equal_gpus_get_an_even_split_in_so_many_words() -> None:
    found = fit(candidate(gpus=(0, 1)))["a"]
    assert found.placement.tensor_split == (1.0, 1.0)
    assert on({"a": found}, "a", 0).kv_mib - on({"a": found}, "a", 1).kv_mib == 32


def test_what_is_decided_is_not_split_again() -> None:
    given = placement(tensor_split=(3.0, 1.0))
    assert even_split(given, profile(), 2) == given
    assert even_split(placement(), profile(), 1) == placement()
    assert even_split(placement(gpu_layers=0), profile(), 2) == placement(gpu_layers=0)
    assert even_split(placement(), profile(split_mode="none"), 2) == placement()
    assert even_split(placement(), profile(split_mode="row"), 2).tensor_split == (1.0, 1.0)


@pytest.mark.parametrize("mode", ["graph", "attn"])
def test_a_split_mode_that_the_server_would_drop_is_refused(mode: str) -> None:
    asked: dict[str, Any] = {"gpus": (0, 1), "kind": "ik_llama.cpp", "split_mode": mode}
    with pytest.raises(
        CorralError, match=f'"{mode}": ik_llama.cpp supports it for glm4moe only, and serves'
    ):
        fit(candidate(**asked))
    assert fit(candidate(of=model(AIR), placed={"experts_on_cpu": True}, **asked))
    assert fit(candidate(placed={"gpu_layers": 0}, **{**asked, "gpus": ()}))


def test_a_new_neighbour_leaves_less_and_the_old_placement_can_be_kept_by_its_keys() -> None:
    """With its keys as overrides the flags stay, and the neighbour gets the rest."""
    first = candidate("a", model(AIR), placement="auto")
    alone = fit_host("lab-1", [first], memory_mib=A100_MIB)["a"]
    beside = fit_host(
        "lab-1",
        [first, candidate("b", model(AIR), placement="auto")],
        memory_mib=A100_MIB,
    )
    assert beside["a"].budgets_mib < alone.budgets_mib
    assert beside["a"].placement != alone.placement
    kept = profile(**alone.placement.as_keys)
    assert resolve_placement(kept, gpus=1) == alone.placement
    pinned = replace(first, profile=kept, placement=resolve_placement(kept, gpus=1))
    both = fit_host("lab-1", [pinned, candidate("b", of=model(DENSE))], memory_mib=2 * A100_MIB)
    assert both["a"].placement == alone.placement
    assert both["a"].budgets_mib == ()
