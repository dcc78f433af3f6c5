"""Waves: who changes together, who waits, what is refused."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.planning.waves import Pools, Wave, fleet_policy
from corral.planning.waves import waves as waves_of
from tests.samples import CHAT, host

pytestmark = pytest.mark.slow

NAMES = [f"gpu-{n}" for n in range(1, 11)]


def fleet(names: list[str] = NAMES, canaries: tuple[str, ...] = (), **data: Any) -> list[Host]:
    return [host(CHAT, name=name, canary=name in canaries, **data) for name in names]


def waves(
    hosts: list[Host], pools: Pools, changing: Collection[str] | None = None
) -> tuple[Wave, ...]:
    serving = [host.name for host in hosts if host.spec.instances]
    return waves_of(serving, fleet_policy(hosts), pools, changing)


def sizes(found: tuple[Wave, ...]) -> list[int]:
    return [len(wave.hosts) for wave in found]


def test_sizes_count_the_hosts_changed_so_far() -> None:
    found = waves(fleet(), {})
    assert sizes(found) == [1, 1, 8]
    assert [wave.name for wave in found] == ["wave 1", "wave 2", "wave 3"]
    assert [name for wave in found for name in wave.hosts] == NAMES


def test_canaries_come_first_and_count() -> None:
    found = waves(fleet(canaries=("gpu-7", "gpu-3"), waves=(1, "50%", "100%")), {})
    assert found[0].hosts == ("gpu-3", "gpu-7")
    assert sizes(found) == [2, 3, 5]


def test_what_is_left_after_the_last_size_is_one_more_wave() -> None:
    assert sizes(waves(fleet(waves=(2,)), {})) == [2, 8]


def test_hosts_without_instances_are_in_no_wave() -> None:
    assert waves([host(name="gw"), *fleet(["a"])], {}) == (Wave(name="wave 1", hosts=("a",)),)
    assert waves([host(name="gw")], {}) == ()


def test_hosts_behind_one_alias_never_change_all_at_once() -> None:
    hosts = fleet(["a", "b", "c"], waves=("100%",))
    pools = {"air": ["a", "b"]}
    assert [wave.hosts for wave in waves(hosts, pools)] == [("a", "c"), ("b",)]
    twice = {"air": ["a", "a", "b", "b"]}
    assert [wave.hosts for wave in waves(hosts, twice)] == [("a", "c"), ("b",)]


def test_min_serving_members_of_each_alias_stay() -> None:
    hosts = fleet(["a", "b", "c", "d"], waves=("100%",), min_serving=3)
    found = waves(hosts, {"air": ["a", "b", "c", "d"]})
    assert [wave.hosts for wave in found] == [("a",), ("b",), ("c",), ("d",)]
    assert not any(wave.warnings for wave in found)


def test_an_alias_with_too_few_members_changes_one_host_at_a_time_and_says_so() -> None:
    hosts = fleet(["a", "b", "c"], waves=("100%",), min_serving=2)
    found = waves(hosts, {"air": ["a", "b"]})
    assert [wave.hosts for wave in found] == [("a",), ("b",), ("c",)]
    said = ("air keeps 1 members, fewer than min_serving = 2",)
    assert [wave.warnings for wave in found] == [said, said, ()]
    (alone,) = waves(fleet(["a"]), {"air": ["a"]})
    assert alone.warnings == ("air has no member while a changes in place",)


def test_sizes_are_of_the_hosts_that_change() -> None:
    found = waves(fleet(), {}, changing={"gpu-8", "gpu-9", "gpu-10"})
    assert [wave.hosts for wave in found] == [("gpu-8",), ("gpu-9", "gpu-10")]


def test_some_hosts_never_need_more_waves_than_all() -> None:
    hosts = fleet(["a", "b", "c", "d", "e"], canaries=("d",), waves=("18%", "50%", "57%"))
    assert [wave.hosts for wave in waves(hosts, {})] == [("d",), ("a", "b"), ("c", "e")]
    found = waves(hosts, {}, changing={"a", "b", "d", "e"})
    assert [wave.hosts for wave in found] == [("d",), ("a", "b"), ("e",)]


@pytest.mark.parametrize(
    ("bad", "said"),
    [((), "empty"), ((0,), "0"), (("0%",), "'0%'"), (("120%",), "'120%'"), (("x",), "'x'"),
     (("50%", "20%"), "must increase"), ((2, 2), "must increase")],
)  # fmt: skip
def test_bad_sizes_are_refused_with_the_key(bad: tuple[int | str, ...], said: str) -> None:
    with pytest.raises(CorralError, match='"waves"') as caught:
        waves(fleet(waves=bad), {})
    assert said in caught.value.what


@pytest.mark.parametrize("key", ["waves", "min_serving"])
def test_hosts_that_disagree_are_refused(key: str) -> None:
    other = {"waves": (2,), "min_serving": 2}[key]
    with pytest.raises(CorralError, match=f'"{key}" differs'):
        waves([*fleet(["a"]), host(CHAT, name="b", **{key: other})], {})


@st.composite
def fleets(draw: st.DrawFn) -> tuple[list[Host], dict[str, list[str]], set[str]]:
    names = NAMES[: draw(st.integers(1, 10))]
    some = st.lists(st.sampled_from(names), min_size=1)
    pools = draw(st.dictionaries(st.sampled_from(["air", "flash", "z1"]), some))
    shares = draw(st.lists(st.integers(1, 100), min_size=1, max_size=3, unique=True).map(sorted))
    hosts = fleet(
        names,
        canaries=tuple(draw(st.sets(st.sampled_from(names)))),
        waves=tuple(f"{share}%" for share in shares),
        min_serving=draw(st.integers(0, 3)),
    )
    return hosts, pools, draw(st.sets(st.sampled_from(names)))


@settings(max_examples=60)
@given(fleets())
def test_every_changing_host_is_in_one_wave_and_no_rule_is_broken_silently(
    made: tuple[list[Host], dict[str, list[str]], set[str]],
) -> None:
    hosts, pools, changing = made
    found = waves(hosts, pools, changing)
    assert sorted(name for wave in found for name in wave.hosts) == sorted(changing)
    assert len(found) <= len(waves(hosts, pools))
    assert found == waves(hosts, pools, changing)
    assert all(wave.hosts for wave in found)
    for wave in found:
        assert not wave.warnings or len(wave.hosts) == 1
        for members in pools.values():
            left = len(members) - len(set(members) & set(wave.hosts))
            kept = left >= hosts[0].policy.min_serving and (left or not members)
            assert kept or len(wave.hosts) == 1 or not set(members) & set(wave.hosts)


@settings(max_examples=60)
@given(fleets())
def test_canaries_are_done_before_anybody_else_begins(
    made: tuple[list[Host], dict[str, list[str]], set[str]],
) -> None:
    hosts, pools, changing = made
    canaries = {host.name for host in hosts if host.policy.canary}
    kinds = [{name in canaries for name in wave.hosts} for wave in waves(hosts, pools, changing)]
    flat = [kind for wave in kinds for kind in sorted(wave, reverse=True)]
    assert all(len(wave) == 1 for wave in kinds)
    assert flat == sorted(flat, reverse=True)
