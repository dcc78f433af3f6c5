"""Which hosts of a deploy take part in a swarm, and what they are asked to bring and to serve."""

from __future__ import annotations

from typing import Any

from pyinfra.api import State

from tests.operations.fleet import Fleet, bare_host, failed, sent, settled_host

NAMES = ("one", "two", "three")


def member(fleet: Fleet, number: int, state: Any) -> None:
    name = NAMES[number]
    fleet.add(name, state)
    fleet.hosts[name] |= {"swarm": True, "member_address": f"10.0.0.{number + 1}"}


def exchanged(state: State, name: str) -> list[Any]:
    """Specs of the jobs that exchange weights."""
    return [job["spec"] for job in sent(state, name) if job["kind"] == "swarm"]


def test_hosts_that_lack_weights_take_part_and_know_each_other(fleet: Fleet) -> None:
    for number in range(2):
        member(fleet, number, bare_host(fleet, NAMES[number]))
    state = fleet.deploy()
    assert failed(state) == set()
    (found,) = exchanged(state, "one")
    assert not [job for job in sent(state, "one") if job["kind"] == "fetch"]
    assert found["held"] == []
    assert len(found["shards"]) == len(fleet.plan("one").shards)
    assert [peer["address"] for peer in found["swarm"]["peers"]] == ["10.0.0.1", "10.0.0.2"]
    assert len(found["swarm"]["expected"]) == 1


def test_a_host_that_has_all_serves_those_that_lack_some(fleet: Fleet) -> None:
    member(fleet, 0, settled_host(fleet, "one"))
    member(fleet, 1, bare_host(fleet, "two"))
    state = fleet.deploy()
    assert failed(state) == set()
    (found,) = exchanged(state, "one")
    assert found["shards"] == []
    assert {one["sha256"] for one in found["held"]} == {s.sha256 for s in fleet.plan("one").shards}


def test_where_nothing_is_missing_nothing_is_served(fleet: Fleet) -> None:
    for number in range(2):
        member(fleet, number, settled_host(fleet, NAMES[number]))
    state = fleet.deploy()
    assert failed(state) == set()
    assert exchanged(state, "one") == exchanged(state, "two") == []


def test_a_host_that_failed_before_is_not_waited_for(fleet: Fleet) -> None:
    member(fleet, 0, settled_host(fleet, "one"))
    member(fleet, 1, bare_host(fleet, "two", systemd=False))
    state = fleet.deploy()
    assert len(failed(state)) == 1
    assert exchanged(state, "one") == []
