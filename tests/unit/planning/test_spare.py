"""The spare of an instance: the same server on another port, in a unit of its own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from corral.errors import CorralError
from corral.host.state import Listener
from corral.plan.host import HostPlan
from corral.plan.instance import InstancePlan, SparePlan
from corral.preflight.checks import preflight
from tests.samples import CHAT, GPU, LONG, NOW_SECONDS, SOCKET, bare, plan


def chat(**changes: Any) -> InstancePlan:
    return plan({**CHAT, **changes}).instances[0]


def spare_of(instance: InstancePlan) -> SparePlan:
    assert instance.activation.spare
    return instance.activation.spare


def test_port_unit_and_keys_are_its_own_and_nothing_else() -> None:
    own, spare = chat(), spare_of(chat())
    changed = {a: b for a, b in zip(own.argv, spare.argv, strict=True) if a != b}
    assert changed == {
        "8001": "18001",
        "/run/credentials/corral-chat.service/api-keys":
            "/run/credentials/corral-chat-spare.service/api-keys",
    }  # fmt: skip
    assert spare.unit_path == "/etc/systemd/system/corral-chat-spare.service"
    assert (spare.endpoint.address, spare.endpoint.port) == ("127.0.0.1", 18001)
    for line in (
        f"X-Corral-Generation={own.generation}",
        "LoadCredential=api-keys:/etc/corral/keys/chat",
        "SocketBindAllow=tcp:18001",
    ):
        assert line in spare.unit_text.splitlines()


def test_its_cache_is_its_own_as_it_is_another_user() -> None:
    instance = plan(CHAT, gpus=GPU).instances[0]
    assert "CacheDirectory=corral-chat-spare" in spare_of(instance).unit_text


@pytest.mark.parametrize(
    ("given", "wanted"),
    [({}, 18001), ({"port": 55535}, 65535), ({"port": 55536}, 45536), ({"spare_port": 9}, 9)],
)
def test_its_port_is_given_or_ten_thousand_away(given: dict[str, int], wanted: int) -> None:
    assert spare_of(chat(**given)).endpoint.port == wanted


def test_a_unix_socket_has_no_spare() -> None:
    assert plan(SOCKET).instances[0].activation.spare is None


def test_how_an_instance_switches_restarts_nothing() -> None:
    keys = {"spare_port": 9, "activation": "in-place", "drain_seconds": 5, "confirm_seconds": 6}
    changed = chat(**keys)
    assert changed.generation == chat().generation
    assert changed.unit_text == chat().unit_text
    how = changed.activation
    assert (how.how, how.drain_seconds, how.confirm_seconds) == ("in-place", 5, 6)


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ({"port": 18001}, 'instances "chat" and "long" share port 18001'),
        ({"spare_port": 8001}, "share port 8001, one as its spare_port"),
        ({"spare_port": 8002}, 'instance "long" has port 8002 as its spare_port, too'),
        ({"name": "chat-spare"}, 'instance "chat-spare" has the name of another'),
    ],
)
def test_spares_share_neither_ports_nor_names(second: dict[str, Any], told: str) -> None:
    with pytest.raises(CorralError, match=told):
        plan(CHAT, {**LONG, **second})


def findings(planned: HostPlan) -> list[tuple[str, bool]]:
    """With a stranger on the spare port: what is found, and whether it stops."""
    nc = Listener(pid=7, program="nc", unit="")
    state = bare(planned, listeners={18001: nc})
    return [(f.what, f.stops) for f in preflight(planned, state, now_seconds=NOW_SECONDS)]


def test_a_taken_spare_port_stops_only_who_insists_on_it() -> None:
    told = "chat: spare port 18001 is taken by nc (pid 7)"
    assert findings(plan(CHAT)) == [(told, False)]
    assert findings(plan({**CHAT, "activation": "side-by-side"})) == [(told, True)]
    assert findings(plan({**CHAT, "activation": "in-place"})) == []


def test_questions_to_the_helper_carry_no_unit_texts() -> None:
    for one in json.loads(plan(CHAT, SOCKET).to_helper())["instances"]:
        assert "unit_text" not in one
        assert "unit_text" not in (one["activation"]["spare"] or {})
