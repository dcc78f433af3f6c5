"""One plan of a fleet: what is decided from all hosts, its parts, and hosts that cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from corral.errors import CorralError
from corral.inventory.hosts import Host, read_host
from corral.inventory.run_options import RunOptions
from corral.plan.fleet import FleetPolicy
from corral.plan.host import HostPlan
from corral.planning.clients import InFront
from corral.planning.fleet import FleetPlan, fleet_of, plan_fleet
from corral.planning.planner import Planner
from tests.samples import CHAT, LONG, host, planner
from tests.unit.gateway_samples import fleet as hosts_with_gateway

TYPO = {"instances": [CHAT], "gpu": 1}


def read(name: str, data: dict[str, Any]) -> tuple[Host, CorralError]:
    found, mistake = read_host(name, data, origin="i.py")
    assert found
    assert mistake
    return found, mistake


def beside_a_mistake(hosts: list[Host], name: str = "bad", **data: Any) -> FleetPlan:
    """These hosts and one with a mistake, in one inventory."""
    bad, mistake = read(name, {**TYPO, **data})
    return plan_fleet([*hosts, bad], planner(), mistakes={name: mistake})


def test_a_plan_knows_what_its_host_builds_for_others() -> None:
    found = plan_fleet([host(CHAT, name="a"), host(CHAT, name="b")], planner())
    (release,) = found.plan("a").releases
    assert found.plan("a").builds == (release,)
    assert found.plan("b").builds == ()
    assert found.builds[release.key].receivers == ("b",)


def test_who_builds_fetches_from_where_it_fetches_sources() -> None:
    mirror = {"llama.cpp": "https://git.example/mirror"}
    hosts = [host(CHAT, name="a"), host(name="b", builder=True, engine_sources=mirror)]
    (built,) = plan_fleet(hosts, planner()).plan("b").builds
    assert built.artifact.source_url == mirror["llama.cpp"]
    (own,) = plan_fleet(hosts, planner()).plan("a").releases
    assert own.artifact.source_url != built.artifact.source_url


def test_only_hosts_that_are_reached_build() -> None:
    hosts = [host(CHAT, name="a"), host(CHAT, name="b")]
    found = plan_fleet(hosts, planner(), reached={"b"})
    assert [build.candidates for build in found.builds.values()] == [("b",)]
    assert found.plan("a").builds == ()


def test_a_wrong_host_is_a_mistake_beside_the_plans_of_others() -> None:
    found = beside_a_mistake([host(CHAT, name="a")])
    assert found.plan("a").builds == found.plan("a").releases
    with pytest.raises(CorralError, match='unknown key "gpu"'):
        found.plan("bad")
    assert list(found.unread) == ["bad"]


def test_a_host_that_cannot_be_planned_is_one_too() -> None:
    other = host({**CHAT, "profile": "tiny-cat"}, name="other")
    found = plan_fleet([host(CHAT, name="a"), other], planner())
    assert found.plan("a").instances
    assert list(found.unread) == ["other"]
    with pytest.raises(CorralError, match="tiny-cat"):
        found.plan("other")


def test_a_gateway_does_not_lose_servers_that_cannot_be_read(tmp_path: Path) -> None:
    found = beside_a_mistake(hosts_with_gateway(tmp_path))
    with pytest.raises(CorralError, match="bad may be a member and cannot be read") as caught:
        found.plan("gw")
    assert 'unknown key "gpu"' in caught.value.what
    # Which gateways a host is behind is known nevertheless, and so are its keys.
    one = found.host("one")
    assert found.gateways_of(one)["gw"].pool_of("one/chat")
    assert found.plan("one").gateway is None


def test_an_alias_that_nobody_else_serves_keeps_no_host_from_its_keys(tmp_path: Path) -> None:
    small = {"port": 8000, "may_differ": ["context", "slots"]}
    aliases = {"small": small, "big": {"port": 8001, "weights": {"bad/x": 5}}}
    found = beside_a_mistake(hosts_with_gateway(tmp_path, aliases=aliases))
    assert [pool.alias for pool in found.gateways_of(found.host("one"))["gw"].pools] == ["small"]


def test_servers_behind_a_gateway_that_cannot_be_read_do_not_take_its_key_away(
    tmp_path: Path,
) -> None:
    hosts = [one for one in hosts_with_gateway(tmp_path) if one.name != "gw"]
    wrong, mistake = read("gw", {"gateway": {"aliases": 7}})
    found = plan_fleet([*hosts, wrong], planner(), mistakes={"gw": mistake})
    with pytest.raises(CorralError, match="gw may be its gateway and cannot be read"):
        found.gateways_of(found.host("one"))
    # Nobody sends a host without servers anything.
    empty = plan_fleet([host(name="build"), wrong], planner(), mistakes={"gw": mistake})
    assert empty.gateways_of(empty.host("build")) == {}


def test_a_gateway_of_another_alias_is_none_of_a_server(tmp_path: Path) -> None:
    found = plan_fleet(hosts_with_gateway(tmp_path, aliases={"other": {"port": 8000}}), planner())
    assert list(found.gateway_mistakes) == ["gw"]
    assert found.gateways_of(found.host("one")) == {}
    with pytest.raises(CorralError, match="no instance has this alias"):
        found.plan("gw")


def instances(plan: HostPlan) -> list[str]:
    return [instance.name for instance in plan.instances]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("one",), {"one": ["chat", "long"]}),
        (("chat",), {"one": ["chat"], "two": ["chat"], "shy": ["chat"]}),
        (("two/chat", "one/long"), {"one": ["long"], "two": ["chat"]}),
        (("gw",), {"gw": []}),
        (("nobody",), {}),
    ],
)
def test_a_part_is_what_names_fit(
    tmp_path: Path, names: tuple[str, ...], found: dict[str, list[str]]
) -> None:
    part = plan_fleet(hosts_with_gateway(tmp_path), planner()).select(names)
    assert {host.name: instances(plan) for host, plan in part.pairs()} == found


def test_a_gateway_is_part_of_its_host_and_not_of_its_instances() -> None:
    gateway = {"aliases": {"small": {"port": 8000, "may_differ": ["context", "slots"]}}}
    whole = plan_fleet([host({**CHAT, "address": "0.0.0.0"}, LONG, name="gw", gateway=gateway)],
                       planner())  # fmt: skip
    assert whole.plan("gw").gateway
    assert whole.select(["gw"]).plan("gw").gateway
    assert whole.select(["gw/chat"]).plan("gw").gateway is None
    both = whole.select(["gw/chat"], gateways=["gw"])
    assert (instances(both.plan("gw")), both.plan("gw").gateway) == (["chat"], whole.gateways["gw"])
    assert both.select(["chat", "long"]).plan("gw").gateway is None
    assert instances(both.select(["gw"]).plan("gw")) == ["chat"]
    assert fleet_of(whole.pairs()).select(["gw"]).plan("gw") == whole.plan("gw")


def test_a_host_is_planned_once_and_only_when_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    plan_host = Planner.plan_host

    def counted(this: Planner, of: Host, in_front: InFront) -> HostPlan:
        asked.append(of.name)
        return plan_host(this, of, in_front)

    monkeypatch.setattr(Planner, "plan_host", counted)
    found = plan_fleet([host(CHAT, name="a"), host(CHAT, name="b")], planner())
    assert found.builds
    found.plan("b")
    found.select(["b/chat"]).plan("b")
    assert asked == ["b"]


def test_a_policy_is_that_of_the_hosts_that_can_be_read() -> None:
    hosts = [host(CHAT, name=name, waves=(2,), soak_seconds=7) for name in ("a", "b", "c")]
    found = beside_a_mistake([*hosts, host(name="gw")], canary=True)
    assert found.policy == FleetPolicy(waves=(2,), soak_seconds=7)
    assert [wave.hosts for wave in found.waves()] == [("a", "b"), ("c",)]


def test_what_one_run_is_asked_for_is_no_part_of_a_plan() -> None:
    asked: dict[str, Any] = {
        "stage_only": "true",
        "without_failed": "yes",
        "allow_reboot": True,
        "rollout": "r",
    }
    found = host(CHAT, **asked)
    assert found.options == RunOptions(
        stage_only=True, without_failed=True, allow_reboot=True, rollout="r"
    )
    assert planner().plan_host(found) == planner().plan_host(host(CHAT))
    assert planner().plan_host(host(CHAT, canary=True)) == planner().plan_host(host(CHAT))
    with pytest.raises(CorralError, match="stage_only"):
        host(CHAT, stage_only="perhaps")
