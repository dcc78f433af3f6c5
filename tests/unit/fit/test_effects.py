"""Keys that do nothing for a model say so, instead of being accepted."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.fit.test_host import candidate, fit, refusal
from tests.unit.fit_samples import AIR, DENSE, FLASH, model

ROOM_MIB = 10**6


@pytest.mark.parametrize(
    ("of", "keys", "said"),
    [
        (
            DENSE,
            {"attention_max_batch_mib": 512},
            "attention_max_batch_mib has no effect: glm4 has",
        ),
        (AIR, {"attention_max_batch_mib": 512}, "attention_max_batch_mib has no effect: glm4moe"),
        (AIR, {"mla_mode": 3}, "mla_mode has no effect: glm4moe has no latent attention"),
        (DENSE, {"cpu_moe_layers": 3}, "cpu_moe_layers has no effect: the model (glm4) has no"),
        (DENSE, {"fused_moe": False}, "fused_moe has no effect: the model (glm4) has no experts"),
        (DENSE, {"placement": "experts-on-cpu"}, 'placement = "experts-on-cpu" has no effect'),
    ],
)
def test_a_key_without_effect_is_refused_by_its_name(
    of: Any, keys: dict[str, Any], said: str
) -> None:
    error = refusal(candidate(of=model(of), kind="ik_llama.cpp", **keys), memory_mib=ROOM_MIB)
    assert said in error.what
    assert error.next_step == f"remove {said.partition(' has no')[0]} from the profile"


@pytest.mark.parametrize(
    ("of", "keys"),
    [
        (DENSE, {"attention_max_batch_mib": 512, "flash_attention": False}),
        (FLASH, {"attention_max_batch_mib": 512}),
        (FLASH, {"mla_mode": 2}),
        (AIR, {"cpu_moe_layers": 3, "fused_moe": False}),
    ],
)
def test_a_key_with_an_effect_is_accepted(of: Any, keys: dict[str, Any]) -> None:
    assert fit(candidate(of=model(of), kind="ik_llama.cpp", **keys), memory_mib=ROOM_MIB)
