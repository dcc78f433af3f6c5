"""Gateways around an activation: drained before, ready after, at every one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from corral.activation import NoGateway
from corral.errors import CorralError
from corral.gateway import control
from corral.gateway.control import Drained, LastServerError, ServerState
from corral.inventory import Host, parse_host
from corral.keys import keys_in
from corral.traffic import key_of, traffic
from tests.samples import CHAT, host, planner
from tests.unit.gateway_samples import fleet

INSTANCE = planner().plan_host(host(CHAT)).instances[0]


class FakeControl:
    """Two gateways; ``last`` and ``sick`` name those that refuse, or no longer see the server."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.last: set[str] = set()
        self.sick: set[str] = set()
        self.unknown: set[str] = set()

    def state(self, gateway: Host) -> list[ServerState]:
        name = "other" if gateway.name in self.unknown else "one_chat"
        row: dict[str, Any] = {"server": name, "pool": "small", "up": True, "admin": "ready"}
        row |= {"weight": 100, "sessions": 0, "check": "", "until": None}
        return [ServerState(**row)]

    def drain(self, gateway: Host, server: str, lease_seconds: int, **_: object) -> Drained:
        if gateway.name in self.last:
            raise LastServerError(gateway.name, f"{server} is the last", "mean it")
        self.done.append(f"drain {gateway.name} {server} {lease_seconds}")
        return Drained(sessions_left=0, seconds=0)

    def ready(self, gateway: Host, server: str) -> bool:
        self.done.append(f"ready {gateway.name} {server}")
        return gateway.name not in self.sick


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeControl:
    found = FakeControl()
    for name in ("state", "drain", "ready"):
        monkeypatch.setattr(control, name, getattr(found, name))
    return found


def two_gateways(keys: Path) -> list[Host]:
    hosts = fleet(keys)
    spare = {"gateway": {"aliases": {"small": {"port": 9000}}}, "keys_folder": str(keys)}
    return [*hosts, parse_host("gw-2", spare)]


def away(keys: Path, said: list[str]) -> bool:
    found, _ = traffic(two_gateways(keys), planner(), said.append)
    with found.away("one/chat", INSTANCE, 90) as drained:
        return drained


def test_it_is_drained_at_all_gateways_and_brought_back(fake: FakeControl, tmp_path: Path) -> None:
    assert away(tmp_path, []) is True
    assert fake.done == [
        *("drain gw one/chat 90", "drain gw-2 one/chat 90"),
        *("ready gw one/chat", "ready gw-2 one/chat"),
    ]


def test_it_is_brought_back_whatever_happens(fake: FakeControl, tmp_path: Path) -> None:
    found, _ = traffic(two_gateways(tmp_path), planner(), print)
    with pytest.raises(CorralError, match="no report"), found.away("one/chat", INSTANCE, 90):
        raise CorralError("one", "no report", "look")
    assert fake.done[2:] == ["ready gw one/chat", "ready gw-2 one/chat"]


def test_the_last_server_is_not_drained_and_that_is_said(fake: FakeControl, tmp_path: Path) -> None:
    fake.last, said = {"gw-2"}, list[str]()
    assert away(tmp_path, said) is False
    assert said == ["gw-2: one/chat is the last"]
    assert "ready gw one/chat" in fake.done


def test_a_server_that_does_not_serve_again_is_told(fake: FakeControl, tmp_path: Path) -> None:
    fake.sick = {"gw-2"}
    with pytest.raises(CorralError, match=r"gw-2: one/chat does not pass"):
        away(tmp_path, [])


def test_a_gateway_that_is_yet_to_learn_of_it_is_left_alone(
    fake: FakeControl, tmp_path: Path
) -> None:
    fake.unknown = {"gw", "gw-2"}
    assert away(tmp_path, []) is False
    assert fake.done == []


def test_pools_tell_the_hosts_of_each_alias_once(tmp_path: Path) -> None:
    _, pools = traffic(two_gateways(tmp_path), planner(), print)
    assert pools == {"small": ["one", "two"]}


def test_without_a_gateway_there_is_nothing_to_do(tmp_path: Path) -> None:
    hosts = fleet(tmp_path)[:3]
    found, pools = traffic(hosts, planner(), print)
    assert isinstance(found, NoGateway)
    assert pools == {}
    assert len(keys_in(key_of(hosts, planner())(hosts[0], "chat").text)) == 1


def test_keys_are_those_that_a_deploy_puts_on_hosts(tmp_path: Path) -> None:
    hosts = two_gateways(tmp_path)
    assert len(keys_in(key_of(hosts, planner())(hosts[0], "chat").text)) == 3
