"""Overrides of an instance: keys of its profile that count for it alone."""

from __future__ import annotations

from typing import Any

import pytest

from corral.errors import CorralError
from corral.inventory.hosts import parse_host
from corral.lock.lock_file import wanted_by
from corral.plan.instance import InstancePlan
from corral.planning.gateways import served
from tests.samples import CHAT, host, planner


def planned(overrides: dict[str, Any], **data: Any) -> InstancePlan:
    return planner().plan_host(host({**CHAT, "overrides": overrides, **data})).instances[0]


def refusal(overrides: dict[str, Any], **data: Any) -> CorralError:
    spec = {**CHAT, "overrides": overrides, **data}
    one = parse_host("lab-1", {"instances": [spec]}, origin="inventories/mine.py")
    with pytest.raises(CorralError) as caught:
        planner().plan_host(one)
    return caught.value


def test_an_override_counts_for_its_instance_alone() -> None:
    other = {"name": "other", "profile": "chat", "port": 8002}
    both = planner().plan_host(
        host({**CHAT, "overrides": {"context_tokens_per_slot": 4096}}, other)
    )
    assert [one.context_tokens_per_slot for one in both.instances] == [4096, 2048]
    assert both.instances[0].settings is not None
    assert both.instances[0].settings.context_tokens_per_slot == 4096
    assert "8192" in both.instances[0].argv


def test_no_overrides_change_nothing_and_equal_ones_neither() -> None:
    plain = planner().plan_host(host(CHAT)).instances[0]
    assert planned({}) == plain
    assert planned({"slots": 2}) == plain


def test_an_alias_may_be_overridden_and_its_gateway_knows() -> None:
    overrides = {"alias": "tuned"}
    assert planned(overrides).alias == "tuned"
    one = host({**CHAT, "overrides": overrides})
    assert served([one], planner().catalog)["lab-1/chat"].alias == "tuned"


def test_tables_are_merged_and_none_is_the_default() -> None:
    profile: dict[str, Any] = {"sampling": {"temperature": 0.5, "top_p": 0.9}, "alias": "tuned"}
    changed = planner(**profile).plan_host(
        host({**CHAT, "overrides": {"sampling": {"top_p": None, "min_p": 0.1}, "alias": None}})
    )
    settings = changed.instances[0].settings
    assert settings is not None
    assert settings.sampling.model_dump(exclude_none=True) == {"temperature": 0.5, "min_p": 0.1}
    assert changed.instances[0].alias == "small"


def test_an_overridden_quant_is_the_one_that_is_locked_and_planned() -> None:
    overrides = {"quant": "F16"}
    assert planned(overrides).quant == "F16"
    one = host({**CHAT, "overrides": overrides})
    assert wanted_by([one], planner().catalog).quants == {("small", "F16")}


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        ({"slotz": 3}, 'unknown key "slotz" (did you mean "slots"?)'),
        ({"sampling": {"top_pp": 3}}, 'unknown key "sampling.top_pp" (did you mean "top_p"?)'),
        ({"slots": "many"}, "slots: Input should be a valid integer"),
        ({"model": None}, 'key "model" is missing'),
        ({"extends": "long"}, 'unknown key "extends"'),
    ],
)
def test_a_mistake_names_inventory_host_instance_and_key(
    overrides: dict[str, Any], what: str
) -> None:
    error = refusal(overrides)
    assert error.where == "inventories/mine.py: lab-1/chat: overrides"
    assert what in error.what
    assert error.next_step == "edit inventories/mine.py"


def test_a_key_in_both_places_is_refused() -> None:
    error = refusal({"quant": "F16"}, quant="F16")
    assert 'the instance has "quant", and its overrides have it, too' in error.what


def test_an_impossible_value_names_where_it_comes_from() -> None:
    error = refusal({"context_tokens_per_slot": 9000})
    source = "inventories/mine.py: lab-1/chat: overrides"
    assert error.where == "lab-1/chat"
    assert f"context_tokens_per_slot = 9000 comes from {source}" in error.what


def test_a_key_that_the_engine_lacks_names_where_it_comes_from() -> None:
    error = refusal({"mla_mode": 2})
    assert "mla_mode is supported by ik_llama.cpp only" in error.what
    assert "mla_mode = 2 comes from inventories/mine.py: lab-1/chat: overrides" in error.what


def test_two_values_that_exclude_each_other_name_where_the_other_comes_from() -> None:
    error = refusal({"kv_type_v": "q8_0", "flash_attention": False})
    assert "needs flash_attention = true" in error.what
    assert "comes from" not in error.what, "both are in the file that the error names"
