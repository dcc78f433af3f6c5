"""A server that answers without a key is reached through gateways alone."""

from __future__ import annotations

from typing import Any

import pytest

from corral.engines import engine_module
from corral.errors import CorralError
from corral.inventory.hosts import Host, parse_host
from corral.plan.instance import InstancePlan
from corral.planning.fleet import plan_fleet
from tests.samples import CHAT, ROOT, host
from tests.unit.vllm_samples import ASKED, ON_CPU, planner

ALIAS = "small-safetensors"
GATEWAY: dict[str, Any] = {"aliases": {ALIAS: {"port": 8000}}, "trusted_networks": ["10.0.0.0/24"]}
ALL: dict[str, Any] = {**ASKED, "address": "0.0.0.0"}
ONE: dict[str, Any] = {**ASKED, "address": "10.0.0.11"}


def server(spec: dict[str, Any], **data: Any) -> Host:
    return host(spec, name="one", **{"member_address": "10.0.0.11", **data})


def gateway(name: str = "gw", **data: Any) -> Host:
    given = {"ssh_hostname": "10.0.0.2", "gateway": GATEWAY, **data}
    return parse_host(name, {key: value for key, value in given.items() if value is not None})


def planned(*hosts: Host, **changes: Any) -> InstancePlan:
    """The first instance of the first host, planned among all of them."""
    fleet = plan_fleet(hosts, planner(**ON_CPU, **changes))
    return fleet.plan(hosts[0].name).instances[0]


def allowed(instance: InstancePlan) -> list[str]:
    """Addresses that its unit lets in; the unit refuses all others."""
    lines = instance.unit_text.splitlines()
    assert ("IPAddressDeny=any" in lines) is (instance.clients is not None)
    found = [line.partition("=")[2] for line in lines if line.startswith("IPAddressAllow=")]
    assert found == list(instance.clients or ())
    return found


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1"])
def test_on_loopback_nobody_else_is_let_in(address: str) -> None:
    assert allowed(planned(server({**ASKED, "address": address}))) == ["localhost"]


@pytest.mark.parametrize(
    ("spec", "own"), [(ALL, []), (ONE, ["10.0.0.11"]), ({**ALL, "address": "::"}, [])]
)
def test_on_the_network_its_gateways_are_let_in(spec: dict[str, Any], own: list[str]) -> None:
    others = (gateway(), gateway("gw-2", ssh_hostname="gw-2.lan", member_address="10.0.0.3"))
    instance = planned(server(spec), *others)
    assert allowed(instance) == ["localhost", *own, "10.0.0.2", "10.0.0.3"]
    spare = instance.activation.spare
    assert spare is not None
    assert "IPAddressAllow=10.0.0.2" in spare.unit_text.splitlines()


def test_a_gateway_of_its_own_host_comes_over_loopback() -> None:
    here = server(ALL, gateway={**GATEWAY, "trusted_networks": []}, ssh_hostname="one.lan")
    assert allowed(planned(here)) == ["localhost"]


@pytest.mark.parametrize(
    "others",
    [
        (),
        (
            gateway(gateway={**GATEWAY, "aliases": {"small": {"port": 8000}}}),
            host({**CHAT, "address": "10.0.0.5"}, name="two"),
        ),
    ],
    ids=["no gateway", "a gateway of another alias"],
)
def test_without_a_gateway_in_front_it_is_refused(others: tuple[Host, ...]) -> None:
    with pytest.raises(CorralError) as caught:
        planned(server(ALL), *others)
    error = caught.value
    assert error.where == "one/glm"
    assert "listens on 0.0.0.0" in error.what
    assert "vllm answers POST /invocations without a key" in error.what
    assert f'"gateway": {{"aliases": {{"{ALIAS}": {{"port": 8000}}}}}} in the data of one' in (
        error.next_step
    )
    step = parse_host("one", {"gateway": {"aliases": {ALIAS: {"port": 8000}}}})
    assert step.spec.gateway is not None


def test_the_next_step_of_a_refusal_works() -> None:
    assert allowed(planned(server(ASKED, gateway={"aliases": {ALIAS: {"port": 8000}}})))


def test_a_gateway_without_an_address_is_named() -> None:
    with pytest.raises(CorralError) as caught:
        planned(server(ALL), gateway(ssh_hostname="gw.lan"))
    assert caught.value.where == "one/glm"
    assert "only its gateway gw may connect" in caught.value.what
    assert 'give gw a "member_address"' in caught.value.next_step


def test_a_gateway_that_cannot_be_read_stops_it() -> None:
    mistake = CorralError("x: gw", "a mistake", "edit x")
    unread = parse_host("gw", {"ssh_hostname": "10.0.0.2"})
    unread = unread.model_copy(update={"data": {**unread.data, "gateway": {"aliases": 1}}})
    hosts = (server(ALL), unread)
    fleet = plan_fleet(hosts, planner(**ON_CPU), mistakes={"gw": mistake})
    with pytest.raises(CorralError, match="gw may be its gateway and cannot be read"):
        fleet.plan("one")


def test_a_server_whose_key_guards_every_route_may_be_open() -> None:
    instance = planned(host({**CHAT, "address": "0.0.0.0"}, name="one"))
    assert allowed(instance) == []
    assert (instance.clients, instance.keyless_routes) == (None, ())


def test_every_route_of_the_server_is_decided() -> None:
    """Those of vLLM 0.32, read from the routers of its source."""
    text = (ROOT / "tests" / "data" / "vllm" / "routes-0.32.txt").read_text()
    known = {tuple(line.split()) for line in text.splitlines()}
    routes = engine_module("vllm").routes
    assert known == {*routes.open, *routes.closed}


def test_what_answers_without_a_key_is_closed_to_clients_of_gateways() -> None:
    routes = engine_module("vllm").routes
    assert set(routes.keyless) <= routes.closed.keys()
    # Found open on a server of vLLM 0.32 with keys.
    for method, path in (
        *(("POST", "/invocations"), ("POST", "/tokenize"), ("POST", "/detokenize")),
        *(("POST", "/generative_scoring"), ("POST", "/scale_elastic_ep"), ("GET", "/metrics")),
        *(("GET", "/version"), ("GET", "/load"), ("GET", "/docs"), ("GET", "/openapi.json")),
        *(("GET", "/ping"), ("GET", "/health"), ("GET", "/kv_event_sources")),
    ):
        assert (method, path) in routes.keyless
    assert "POST /invocations" in planned(server(ASKED)).keyless_routes
