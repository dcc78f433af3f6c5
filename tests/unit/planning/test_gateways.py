"""What a gateway serves: decided from all hosts, or refused in one sentence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from corral.errors import CorralError
from corral.inventory.hosts import Host, parse_host
from corral.paths import HostPaths
from corral.planning.gateways import gateways, gateways_of, instance_keys, refuse_keys
from corral.planning.planner import GATEWAY_PACKAGES, PACKAGES
from corral.store.api_keys import ensure_keys, keys_in
from corral.store.gateway_keys import upstream_keys
from tests.samples import CHAT, LONG, catalog, host, planner
from tests.unit.gateway_samples import OPEN, fleet, make_keys, plan


def test_members_are_all_instances_of_the_alias_that_it_reaches(tmp_path: Path) -> None:
    (pool,) = plan(fleet(tmp_path)).pools
    found = {m.name: (m.server, m.address, m.port, m.weight) for m in pool.members}
    assert found == {
        "one/chat": ("one_chat", "10.0.0.11", 8001, 100),
        "one/long": ("one_long", "10.0.0.1", 8002, 100),
        "two/chat": ("two_chat", "10.0.0.2", 8001, 25),
    }
    assert pool.left_out == (
        "shy/chat listens on 127.0.0.1",
        "shy/private listens on a unix socket",
    )


def test_its_own_instances_are_reached_on_loopback() -> None:
    """Loopback is trusted without a word: what answers there is the unit (ADR 0020)."""
    aliases = {"small": {"port": 8000, "may_differ": ["context", "slots"]}}
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
        ({"aliases": {}}, "needs at least one alias"),
        ({"aliases": {"smal": {"port": 8000}}}, 'did you mean "small"'),
        ({"aliases": {"small": {"port": 8000, "weights": {"two/chta": 1}}}}, '"two/chat"'),
        ({"aliases": {"small": {"port": 8000, "weights": {"shy/chat": 1}}}}, "not a member"),
        ({"aliases": {"small": {"port": 8000, "weights": {"two/chat": 101}}}}, "100"),
        ({"metrics_port": 8000}, "port 8000 is used twice"),
        ({"trusted_networks": ["0.0.0.0/0"]}, "0.0.0.0/0 covers every address"),
        ({"trusted_networks": ["10.0.0.1/24"]}, "host bits"),
        ({"trusted_networks": ["one.lan"]}, "trusted_networks"),
        ({"trusted_networks": [1]}, "must be text"),
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
    with pytest.raises(CorralError, match="no member would serve"):
        plan(fleet(tmp_path, aliases={"small": {"port": 8000, "weights": none}}))


@pytest.mark.parametrize(
    ("trusted", "told", "step"),
    [
        ([], "one/chat at 10.0.0.11, one/long at 10.0.0.1, two/chat at 10.0.0.2", '"10.0.0.11"'),
        (["10.0.0.8/29"], "to one/long at 10.0.0.1, two/chat at 10.0.0.2", '"10.0.0.1"'),
        (["10.0.1.0/24", "fd00::/8"], "one/chat at 10.0.0.11", '"trusted_networks"'),
    ],
)
def test_keys_and_prompts_stay_in_trusted_networks(
    tmp_path: Path, trusted: list[str], told: str, step: str
) -> None:
    with pytest.raises(CorralError) as caught:
        plan(fleet(tmp_path, trusted_networks=trusted))
    assert caught.value.where == "gw: gateway, alias small"
    assert told in caught.value.what
    assert step in caught.value.next_step
    assert '"trusted_networks" in "gateway" of gw' in caught.value.next_step


@pytest.mark.parametrize("address", ["two.lan", "127.0.0.1", "::1", "localhost"])
def test_a_name_is_in_no_network_and_loopback_of_another_host_is_not_its_own(
    tmp_path: Path, address: str
) -> None:
    """Whoever answers for DNS, or listens on the gateway's host, would get the keys."""
    hosts = fleet(tmp_path)
    hosts[1] = host(OPEN, name="two", ssh_hostname=address)
    with pytest.raises(CorralError, match=f"to two/chat at {re.escape(address)}\n") as caught:
        plan(hosts)
    assert 'give two a "member_address"' in caught.value.next_step


def test_an_address_of_the_gateways_own_host_is_trusted_on_loopback_alone() -> None:
    """A plan does not know whether the address is that host's."""
    gateway = {"aliases": {"small": {"port": 8000}}}
    with pytest.raises(CorralError, match=r"gw/chat at 10\.0\.0\.9"):
        plan([host({**CHAT, "address": "10.0.0.9"}, name="gw", gateway=gateway)])
    for address in ("127.0.0.1", "::1", "127.3.2.1"):
        assert plan([host({**CHAT, "address": address}, name="gw", gateway=gateway)])


def test_loopback_of_a_host_in_its_folder_is_not_the_gateways_own() -> None:
    gateway = parse_host("gw", {"gateway": {"aliases": {"small": {"port": 8000}}}})
    with pytest.raises(CorralError, match="gw/inner/chat at ::1") as caught:
        plan([host(OPEN, name="gw/inner", ssh_hostname="::1"), gateway])
    assert "give gw/inner a" in caught.value.next_step


def test_a_member_address_is_numeric() -> None:
    with pytest.raises(CorralError, match="member_address"):
        host(OPEN, member_address="one.lan")


def test_ports_and_key_files_of_its_own_instances_are_not_shared() -> None:
    gateway = {"aliases": {"small": {"port": 8001}}}
    with pytest.raises(CorralError, match="port 8001 is used twice"):
        plan([host(OPEN, name="gw", gateway=gateway)])
    twin = {**OPEN, "name": "gateway-small", "port": 8002}
    with pytest.raises(CorralError, match="would share the key file"):
        plan([host(twin, name="gw", gateway=gateway)])


def test_two_servers_of_one_name_to_haproxy_are_refused() -> None:
    reached = {"member_address": "10.0.0.1"}
    hosts = [host(OPEN, name="a b", **reached), host(OPEN, name="a_b", **reached)]
    aliases = {"small": {"port": 8000}}
    given = {"gateway": {"aliases": aliases, "trusted_networks": ["10.0.0.1"]}}
    gateway = parse_host("gw", given)
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


@pytest.mark.parametrize("name", ["one/chat", "gw/upstream-small"])
def test_a_key_that_an_engine_cannot_take_names_whose_it_is(tmp_path: Path, name: str) -> None:
    hosts = fleet(tmp_path)
    plans = {"gw": plan(hosts)}
    make_keys(hosts)
    refuse_keys(hosts[0], "chat", "vllm", hosts, plans)
    path = tmp_path / name
    path.write_text(f"# comment\n{'a' * 20}\n-{'b' * 20}\n")
    with pytest.raises(CorralError) as caught:
        refuse_keys(hosts[0], "chat", "vllm", hosts, plans)
    error = caught.value
    assert error.where == name
    assert f"key 2 of {path} begins with a dash" in error.what
    assert error.what.endswith("one/chat needs it")
    assert f"`corral keys new {name} --replace`" in error.next_step
    assert "b" * 20 not in str(error)
    refuse_keys(hosts[0], "chat", "llama.cpp", hosts, plans)


def test_a_gateway_without_instances_builds_nothing(tmp_path: Path) -> None:
    *_, gw = fleet(tmp_path)
    assert planner().plan_host(gw).packages == GATEWAY_PACKAGES
    both = host(CHAT, gateway={"aliases": {"small": {"port": 8000}}})
    assert planner().plan_host(both).packages == (*PACKAGES, "haproxy")
    assert planner().plan_host(host(CHAT)).packages == PACKAGES


def differing(**overrides: Any) -> list[Host]:
    """Two servers of one alias, the second with overrides, and their gateway."""
    gateway = {"aliases": {"small": {"port": 8000}}, "trusted_networks": ["10.0.0.0/24"]}
    first = host({**CHAT, "address": "10.0.0.1"}, name="one")
    second = host({**CHAT, "address": "10.0.0.2", "overrides": overrides}, name="two")
    return [first, second, host(name="gw", gateway=gateway)]


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        (
            {"context_tokens_per_slot": 4096},
            "its servers differ in context: one/chat has 2,048 tokens, two/chat has 4,096 tokens",
        ),
        ({"slots": 3}, "its servers differ in slots: one/chat has 2, two/chat has 3"),
        (
            {"vision": True},
            "its servers differ in vision: one/chat has none, two/chat has vision",
        ),
    ],
)
def test_servers_of_one_alias_that_differ_for_clients_are_refused_or_accepted(
    overrides: dict[str, Any], what: str
) -> None:
    hosts = differing(**overrides)
    with pytest.raises(CorralError) as caught:
        planner().gateways(hosts)
    assert caught.value.where == "gw: gateway, alias small"
    assert caught.value.what == what
    accepted = what.split()[4].rstrip(":")
    assert f'"may_differ": ["{accepted}"]' in caught.value.next_step
    alias = {"port": 8000, "may_differ": [accepted]}
    spec = {"aliases": {"small": alias}, "trusted_networks": ["10.0.0.0/24"]}
    found = planner().gateways([*hosts[:2], host(name="gw", gateway=spec)])
    assert [member.name for member in found["gw"].pools[0].members] == ["one/chat", "two/chat"]


def test_what_clients_do_not_see_may_differ() -> None:
    assert planner().gateways(differing(threads=1, kv_type_k="q8_0", quant="F16"))["gw"].pools
