"""Keys in a deploy: made for new instances, never for keys that a host has and the store lost."""

from __future__ import annotations

import re
import shutil
from typing import Any

import pytest
from pyinfra.api.exceptions import PyinfraError

from corral.engines.llama.server import LlamaServer
from corral.host.state import GatewayState, HostState
from tests.operations.fleet import INSTANCES, Fleet, asked, bare_host, failed, settled_host, steps

GATEWAY: dict[str, Any] = {
    "aliases": {"tiny-glm-moe": {"port": 8000, "may_differ": ["context", "slots"]}},
    "trusted_networks": ["10.0.0.0/24"],
}
UPSTREAM = "upstream-tiny-glm-moe"


def has_keys(state: HostState) -> HostState:
    found = {
        name: one.model_copy(update={"has_keys": True}) for name, one in state.instances.items()
    }
    return state.model_copy(update={"instances": found})


def refused(fleet: Fleet) -> str:
    """The message of a refused deploy; hosts were asked only for their state."""
    state = fleet.connect()
    with pytest.raises(PyinfraError) as caught:
        fleet.deploy(state)
    for name in fleet.hosts:
        assert len(asked(state, name)) <= 1
    return str(caught.value)


def behind_a_gateway(fleet: Fleet, of_gateway: GatewayState | None) -> None:
    """A server, and its gateway that reports this state."""
    fleet.add("server", bare_host(fleet, "server"))
    opened = [{**one, "address": "0.0.0.0"} for one in INSTANCES]
    fleet.hosts["server"] |= {"instances": opened, "member_address": "10.0.0.1"}
    fleet.add("gw", bare_host(fleet, "gw", gateway=of_gateway))
    fleet.hosts["gw"] |= {"instances": [], "gateway": GATEWAY}


def test_a_store_that_was_lost_gets_no_new_keys_and_nothing_is_touched(fleet: Fleet) -> None:
    fleet.add("good", has_keys(settled_host(fleet, "good")))
    shutil.rmtree(fleet.keys_folder)
    said = refused(fleet)
    assert "@fake/good/chat, @fake/good/long" in said
    assert "`corral keys adopt @fake/good/chat @fake/good/long`" in said
    assert not fleet.keys_folder.exists()


def test_a_key_that_an_engine_cannot_take_stops_the_deploy(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.add("good", settled_host(fleet, "good"))
    problem = "is one that it reads as a flag"
    monkeypatch.setattr(LlamaServer, "key_problem", lambda *_: problem)
    said = refused(fleet)
    assert f"key 1 of {fleet.keys_folder}/@fake/good/chat {problem}" in said
    assert "`corral keys new @fake/good/chat --replace`" in said


def test_one_lost_key_is_enough(fleet: Fleet) -> None:
    fleet.add("good", has_keys(settled_host(fleet, "good")))
    (fleet.keys_folder / "@fake/good/long").unlink()
    assert "@fake/good/chat" not in refused(fleet)


def test_an_instance_that_is_new_on_its_host_gets_its_key(fleet: Fleet) -> None:
    state = settled_host(fleet, "good")
    chat = state.instances["chat"].model_copy(update={"has_keys": True})
    new = bare_host(fleet, "good").instances["long"]
    fleet.add("good", state.model_copy(update={"instances": {"chat": chat, "long": new}}))
    (fleet.keys_folder / "@fake/good/long").unlink()
    done = fleet.deploy()
    assert failed(done) == set()
    assert (fleet.keys_folder / "@fake/good/long").exists()
    assert steps(done, "good").count("key") == 1


def test_a_host_that_does_not_say_what_it_has_gets_none(fleet: Fleet) -> None:
    fleet.add("mute", None)
    fleet.add("good", settled_host(fleet, "good"))
    assert failed(fleet.deploy()) == {"mute"}
    assert not (fleet.keys_folder / "@fake/mute").exists()


def test_keys_of_a_gateway_are_lost_as_others_are(fleet: Fleet) -> None:
    keys = ("gateway-tiny-glm-moe", UPSTREAM)
    behind_a_gateway(fleet, GatewayState(installed="ab", running="ab", keys=keys))
    fleet.held = frozenset(keys)
    # Whichever of the two hosts is read first.
    assert re.search(f"`corral keys adopt [^`]*@fake/gw/{UPSTREAM}`", refused(fleet))
    assert not list(fleet.keys_folder.rglob("upstream-*"))


def test_a_new_gateway_and_its_servers_get_theirs(fleet: Fleet) -> None:
    behind_a_gateway(fleet, None)
    fleet.deploy()
    found = sorted(path.name for path in fleet.keys_folder.rglob("*tiny-glm-moe"))
    assert found == ["gateway-tiny-glm-moe", UPSTREAM]
