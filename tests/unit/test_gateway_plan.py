"""What a gateway serves: decided from all hosts, or refused in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from corral.errors import CorralError
from corral.gateway.fleet import gateways, gateways_of, instance_keys
from corral.gateway.keys import upstream_keys
from corral.inventory import parse_host
from corral.keys import ensure_keys, keys_in
from corral.planning import GATEWAY_PACKAGES, PACKAGES
from corral.settings import HostPaths
from tests.samples import CHAT, LONG, catalog, host, planner
from tests.unit.gateway_samples import OPEN, fleet, make_keys, plan


def test_members_are_all_instances_of_the_alias_that_it_reaches(tmp_path: Path) -> None:
    (pool,) = plan(fleet(tmp_path)).pools
    found = {m.name: (m.server, m.address, m.port, m.weight) for m in pool.members}
    assert found == {
        "one/chat": ("one_chat", "one.lan", 8001, 100),
        "one/long": ("one_long", "10.0.0.1", 8002, 100),
        "two/chat": ("two_chat", "two", 8001, 25),
    }
    assert pool.left_out == (
        "shy/chat listens on 127.0.0.1",
        "shy/private listens on a unix socket",
    )


def test_its_own_instances_are_reached_on_loopback() -> None:
    aliases = {"small": {"port": 8000}}
    gateway = host(OPEN, LONG, name="gw", gateway={"aliases": aliases})
    (pool,) = plan([gateway]).pools
    assert {m.address for m in pool.members} == {"127.0.0.1"}


def test_an_alias_of_a_profile_comes_before_the_models_name(tmp_path: Path) -> None:
    hosts = fleet(tmp_path, aliases={"talk": {"port": 8000}})
    (pool,) = gateways(hosts, catalog(alias="talk"), HostPaths())["gw"].pools
    assert {m.name for m in pool.members} == {"one/chat", "two/chat"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"aliases": {}}, "names no alias"),
        ({"aliases": {"smal": {"port": 8000}}}, 'did you mean "small"'),
        ({"aliases": {"small": {"port": 8000, "weights": {"two/chta": 1}}}}, '"two/chat"'),
        ({"aliases": {"small": {"port": 8000, "weights": {"shy/chat": 1}}}}, "not behind it"),
        ({"aliases": {"small": {"port": 8000, "weights": {"two/chat": 101}}}}, "100"),
        ({"metrics_port": 8000}, "port 8000 is used twice"),
        ({"address": "everywhere"}, "address"),
        ({"adress": "0.0.0.0"}, 'did you mean "address"'),
    ],
)
def test_what_cannot_be_served_is_refused(tmp_path: Path, given: Any, said: str) -> None:
    with pytest.raises(CorralError) as caught:
        plan(fleet(tmp_path, **given))
    assert "gw" in caught.value.where
    assert said in caught.value.what


def test_an_alias_that_nobody_in_reach_serves_is_refused() -> None:
    hosts = [host(CHAT), parse_host("gw", {"gateway": {"aliases": {"small": {"port": 8000}}}})]
    with pytest.raises(CorralError, match=r"lab-1/chat listens on 127\.0\.0\.1"):
        plan(hosts)


def test_weights_that_leave_nobody_are_refused(tmp_path: Path) -> None:
    none = dict.fromkeys(("one/chat", "one/long", "two/chat"), 0)
    with pytest.raises(CorralError, match="nobody would serve"):
        plan(fleet(tmp_path, aliases={"small": {"port": 8000, "weights": none}}))


def test_ports_and_key_files_of_its_own_instances_are_not_shared() -> None:
    gateway = {"aliases": {"small": {"port": 8001}}}
    with pytest.raises(CorralError, match="port 8001 is used twice"):
        plan([host(OPEN, name="gw", gateway=gateway)])
    twin = {**OPEN, "name": "gateway-small", "port": 8002}
    with pytest.raises(CorralError, match="would share the key file"):
        plan([host(twin, name="gw", gateway=gateway)])


def test_two_servers_of_one_name_to_haproxy_are_refused() -> None:
    hosts = [host(OPEN, name="a b"), host(OPEN, name="a_b")]
    gateway = parse_host("gw", {"gateway": {"aliases": {"small": {"port": 8000}}}})
    with pytest.raises(CorralError, match="both be called a_b_chat"):
        plan([*hosts, gateway])


def test_instances_behind_it_take_its_key_too_and_others_do_not(tmp_path: Path) -> None:
    hosts = fleet(tmp_path)
    one, _, shy, gw = hosts
    plans = {"gw": plan(hosts)}
    make_keys(hosts)
    taken = keys_in(instance_keys(one, "chat", hosts, plans).text)
    own = ensure_keys(one, "chat")
    assert taken == [own.first, upstream_keys(gw, plans["gw"].pools[0]).first]
    assert instance_keys(one, "chat", hosts, plans).first == own.first
    assert len(keys_in(instance_keys(shy, "chat", hosts, plans).text)) == 1
    assert gateways_of("one/long", hosts, plans) == [gw]


def test_a_gateway_without_instances_builds_nothing(tmp_path: Path) -> None:
    *_, gw = fleet(tmp_path)
    assert planner().plan_host(gw).packages == GATEWAY_PACKAGES
    both = host(CHAT, gateway={"aliases": {"small": {"port": 8000}}})
    assert planner().plan_host(both).packages == (*PACKAGES, *GATEWAY_PACKAGES)
    assert planner().plan_host(host(CHAT)).packages == PACKAGES
