"""What fits on some GPUs without a profile: best first, nothing that does not fit."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from corral.engines import resolve_placement
from corral.fit.answer import Answer, TargetGpu, answer
from corral.fit.model import ModelFile
from corral.fit.offers import Offer, offers
from tests.unit.fit_samples import (
    A100_MIB,
    AIR,
    DENSE,
    FLASH,
    model,
    profile,
    unknown_model,
)

pytestmark = pytest.mark.slow

A100 = TargetGpu("GPU 0", A100_MIB)
TI = TargetGpu("GPU 0", 24564)


def offered(
    quants: dict[str, ModelFile], targets: Sequence[TargetGpu], memory_mib: int | None = 131072
) -> list[Offer]:
    return offers(quants, targets, memory_mib)


def again(
    of: ModelFile, offer: Offer, targets: Sequence[TargetGpu], context_tokens: int | None = None
) -> Answer:
    """What `corral fit` says of a profile as offered, or with another context."""
    asked = profile(
        context_tokens_per_slot=context_tokens or offer.context_tokens,
        kv_type_k=offer.kv_type,
        kv_type_v=offer.kv_type,
        placement=offer.placement,
        batch_tokens=2048,
    )
    return answer(
        of,
        asked,
        resolve_placement(asked, gpus=len(targets)),
        kind="llama.cpp",
        targets=targets,
        host_memory_mib=131072,
    )


def test_a_model_that_fits_as_a_whole_is_offered_so_with_its_longest_contexts() -> None:
    found = offered({"q": model(DENSE)}, [TI])
    assert [(o.kv_type, o.context_tokens, o.placement) for o in found] == [
        ("f16", 32768, "gpu"),
        ("q8_0", 32768, "gpu"),
        ("q4_0", 32768, "gpu"),
    ]


def test_no_longer_context_would_fit() -> None:
    targets = [TargetGpu("GPU 0", 22000)]
    found = offered({"q": model(FLASH)}, targets)
    assert [(o.kv_type, o.context_tokens) for o in found] == [
        ("q4_0", 131072),
        ("q8_0", 65536),
        ("f16", 32768),
    ]
    for offer in found:
        assert offer.placement == "gpu"
        assert again(model(FLASH), offer, targets).fits
        longer = min(2 * offer.context_tokens, 202752)
        assert not again(model(FLASH), offer, targets, longer).fits


def test_the_trained_context_is_tried_before_powers_of_two() -> None:
    found = offered({"q": model(FLASH)}, [A100])
    assert {o.context_tokens for o in found} == {202752}


def test_a_model_that_is_too_large_is_offered_in_part_with_each_context() -> None:
    found = offered({"q": model(AIR)}, [A100])
    assert {o.placement for o in found} == {"auto"}
    pairs = {(o.kv_type, o.context_tokens) for o in found}
    assert pairs == {
        (kv, context) for kv in ("f16", "q8_0", "q4_0") for context in (16384, 32768, 65536, 131072)
    }
    assert all(0 < o.weights_on_gpus_percent < 100 for o in found)
    shares = [o.weights_on_gpus_percent for o in found]
    assert shares == sorted(shares, reverse=True)
    best = found[0]
    assert (best.kv_type, best.context_tokens) == ("q4_0", 16384)


def test_an_offer_says_what_the_answer_with_a_profile_says() -> None:
    best = offered({"q": model(AIR)}, [A100])[0]
    gpu, host = again(model(AIR), best, [A100]).rows
    assert best.free_vram_mib == gpu.free_mib
    assert best.weights_mib == gpu.weights_mib + host.weights_mib
    assert best.host_mib == host.weights_mib + host.compute_mib + host.runtime_mib
    assert best.weights_on_gpus_percent == 100 * gpu.weights_mib // best.weights_mib


def test_whole_ones_come_first_and_of_them_the_larger_quant() -> None:
    quants = {"small": model(FLASH), "large": model(AIR), "middle": model(DENSE)}
    found = offered(quants, [TI])
    assert list(dict.fromkeys(o.quant for o in found)) == ["small", "middle", "large"]
    assert [o.placement == "gpu" for o in found] == [True] * 6 + [False] * (len(found) - 6)
    found = offered(quants, [A100, A100, A100])
    assert {o.placement for o in found} == {"gpu"}
    assert list(dict.fromkeys(o.quant for o in found)) == ["large", "small", "middle"]


def test_of_one_quant_the_longer_context_comes_first_and_then_the_finer_cache() -> None:
    found = offered({"q": model(FLASH)}, [TargetGpu("GPU 0", 22000)])
    assert [o.context_tokens for o in found] == [131072, 65536, 32768]
    found = offered({"q": model(FLASH)}, [A100])
    assert [o.kv_type for o in found] == ["f16", "q8_0", "q4_0"]


def test_without_gpus_the_host_has_it_or_nothing_is_offered() -> None:
    found = offered({"q": model(DENSE)}, [], 65536)
    assert {(o.placement, o.weights_on_gpus_percent) for o in found} == {("cpu", 0)}
    assert {o.context_tokens for o in found} == {32768}
    assert found[0].free_vram_mib == 0
    assert offered({"q": model(DENSE)}, [], 8192) == []


def test_a_host_that_cannot_keep_its_part_is_offered_nothing() -> None:
    assert offered({"q": model(DENSE)}, [TI], 8192) == []
    assert offered({"q": model(DENSE)}, [TI], None)


def test_what_does_not_fit_or_is_not_known_is_left_out() -> None:
    quants = {"strange": unknown_model(), "q": model(DENSE)}
    assert {o.quant for o in offered(quants, [TI])} == {"q"}
    assert offered(quants, [TargetGpu("GPU 0", 2000)]) == []
