"""Members of a swarm: who they are, where they reach each other, and their limits."""

from __future__ import annotations

from typing import Any

import pytest

from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.plan.swarm import SwarmPeer
from corral.planning.fleet import plan_fleet
from corral.planning.swarm import swarm_plan
from tests.samples import CHAT, host, planner


def member(name: str, address: str, **data: Any) -> Host:
    return host(CHAT, name=name, ssh_hostname=address, **{"swarm": True, **data})


def names(of: Host, hosts: list[Host]) -> list[str]:
    plan = swarm_plan(of, hosts)
    return [peer.name for peer in plan.peers] if plan else []


ONE, TWO = member("a", "10.0.0.1"), member("b", "10.0.0.2")


def test_members_are_the_hosts_with_the_key() -> None:
    outside = host(CHAT, name="c", ssh_hostname="10.0.0.3")
    assert names(ONE, [ONE, outside, TWO]) == ["a", "b"]
    assert swarm_plan(outside, [ONE, outside, TWO]) is None


def test_each_site_has_a_swarm_of_its_own() -> None:
    far = [member(n, f"10.1.0.{i}", swarm={"name": "far"}) for i, n in enumerate("xy", start=1)]
    assert names(ONE, [ONE, TWO, *far]) == ["a", "b"]
    assert names(far[0], [ONE, TWO, *far]) == ["x", "y"]


def test_a_single_member_has_no_swarm() -> None:
    assert swarm_plan(ONE, [ONE]) is None
    assert swarm_plan(ONE, [ONE, TWO], without={"b"}) is None


def test_false_is_no_swarm() -> None:
    assert member("c", "10.0.0.3", swarm=False).spec.swarm is None


def test_the_member_address_goes_before_that_of_ssh() -> None:
    inside = member("c", "203.0.113.9", member_address="10.0.0.3", swarm={"port": 7000})
    plan = swarm_plan(ONE, [ONE, inside])
    assert plan
    assert plan.peers[1] == SwarmPeer(name="c", address="10.0.0.3", port=7000)


@pytest.mark.parametrize("address", ["gpu-01.example", "127.0.0.1"])
def test_an_address_that_others_cannot_reach_is_refused_for_its_host_alone(address: str) -> None:
    named = member("c", address)
    with pytest.raises(CorralError, match="member_address"):
        swarm_plan(named, [ONE, named])
    assert names(ONE, [ONE, TWO, named]) == ["a", "b"]


def test_limits_reach_the_helper_in_its_units() -> None:
    limits = {"upload_mib_per_second": 100, "upload_minutes": 5, "max_connections": 7}
    plan = swarm_plan(member("a", "10.0.0.1", swarm=limits), [ONE, TWO])
    assert plan
    assert plan.upload_bytes_per_second == 100 * 1024**2
    assert plan.upload_seconds == 300
    assert plan.connections == 7
    unlimited = swarm_plan(ONE, [ONE, TWO])
    assert unlimited
    assert unlimited.upload_bytes_per_second == 0


def test_the_plan_of_a_fleet_has_it() -> None:
    fleet = plan_fleet([ONE, TWO], planner())
    assert fleet.plan("a").swarm == swarm_plan(ONE, [ONE, TWO])
    assert plan_fleet([host(CHAT, name="a")], planner()).plan("a").swarm is None
