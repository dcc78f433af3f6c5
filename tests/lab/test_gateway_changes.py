"""Changes behind a gateway, and of the gateway itself, under load: no request fails."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from lab.layout import GATEWAY
from tests.lab.streams import streams
from tests.lab.test_gateway import (
    ALIAS,
    CURRENT,
    GW,
    INVENTORY,
    LAB,
    PORT,
    SERVERS,
    client,
    complete,
    corral,
    deploy,
    key,
    servers,
    serving,
    wait_until_serving,
)
from tests.lab.untouched import said
from tests.lab.workspace import Workspace

CHAT = '{"name": "tiny-chat", "profile": "tiny-chat", "port": 8001}'
MOVED = CHAT.replace("8001", "8051")
GPU = '{"name": "tiny-gpu", "profile": "tiny-chat", "port": 8001}'
F16 = '"quant": "F16", "port": 8001}'
OTHER, LONG = "long-glm", '"profile": "tiny-long"'
ADDRESS, EVERYWHERE = '{**chat, "address": str(_lab.address(n))}', '{**chat, "address": "0.0.0.0"}'
PROFILE = "catalog/profiles/tiny-chat.toml"


@pytest.fixture(scope="module")
def lab(with_gateway: Workspace) -> Workspace:
    return with_gateway


def rollout(lab: Workspace, *arguments: str, code: int = 0) -> str:
    done = lab.corral("rollout", INVENTORY, "-y", "--soak", "0", *arguments)
    assert done.returncode == code, said(done)
    return said(done)


def verified(lab: Workspace) -> bool:
    return lab.corral("verify", *LAB).returncode == 0


def ports(lab: Workspace) -> list[str]:
    """Ports of the servers in the gateway."""
    lines = lab.on(GW, "grep '^  server ' /etc/corral/gateway/current/haproxy.cfg").splitlines()
    return [line.split()[2].rpartition(":")[2] for line in lines]


@contextmanager
def two_moved(lab: Workspace) -> Iterator[None]:
    with (
        lab.edited(INVENTORY, CHAT, MOVED),
        lab.edited(INVENTORY, GPU, GPU.replace("8001", "8053")),
    ):
        yield


def test_what_is_staged_touches_no_gateway(lab: Workspace) -> None:
    before = lab.on(GW, CURRENT)
    with two_moved(lab):
        deploy(lab, "--data", "stage_only=true")
        assert lab.on(GW, CURRENT) == before
        assert all(complete(client(lab)) for _ in range(6))
        assert serving(lab) == set(SERVERS)
    deploy(lab)
    assert lab.on(GW, CURRENT) == before


def test_servers_that_move_cost_no_request(lab: Workspace) -> None:
    before = lab.on(GW, CURRENT)
    with streams(client(lab), ALIAS) as seen:
        seen.wait_for_more()
        with two_moved(lab):
            rollout(lab)
            assert ports(lab) == ["8051", "8001", "8053"]
            assert verified(lab)
            seen.wait_for_more()
            again = deploy(lab)
            assert "Success" not in again.split("Results")[0]
            # A revert from what the host has: the gateway follows.
            back = lab.corral("revert", "lab-1/tiny-chat", *LAB)
            assert back.returncode == 0, said(back)
            assert ports(lab) == ["8001", "8001", "8053"]
            wait_until_serving(lab, set(SERVERS), "all serve")
        deploy(lab)
        seen.wait_for_more()
    assert seen.failures == []
    assert lab.on(GW, CURRENT) == before


def beside(entry: str, port: int) -> str:
    """Keys of an instance that moves to another port, side by side."""
    return entry.replace("8001}", f'{port}, "activation": "side-by-side"}}')


def test_servers_that_move_side_by_side_cost_no_request_there_and_back(lab: Workspace) -> None:
    before = lab.on(GW, CURRENT)
    with streams(client(lab), ALIAS) as seen:
        seen.wait_for_more()
        with (
            lab.edited(INVENTORY, CHAT, beside(CHAT, 8051)),
            lab.edited(INVENTORY, F16, beside(F16, 8052)),
        ):
            printed = rollout(lab)
            assert printed.count("kept (side by side, 0.0 s without a server)") == 2, printed
            assert ports(lab) == ["8051", "8052", "8001"]
            assert verified(lab)
            seen.wait_for_more()
            back = lab.corral("revert", "lab-1/tiny-chat", "lab-2/tiny-f16", *LAB)
            assert back.returncode == 0, said(back)
            assert said(back).count("side by side") == 2, said(back)
            assert ports(lab) == ["8001"] * 3
        deploy(lab)
        seen.wait_for_more()
    assert seen.failures == []
    assert lab.on(GW, CURRENT) == before


@pytest.mark.parametrize(
    ("before", "after"),
    [(CHAT, MOVED), (ADDRESS, EVERYWHERE)],
    ids=["port", "address"],
)
def test_the_last_server_of_an_alias_moves_side_by_side_and_costs_no_request(
    before: str, after: str, lab: Workspace
) -> None:
    for other in SERVERS[1:]:
        assert corral(lab, "weight", other, "0%") == 0
    with streams(client(lab), ALIAS) as seen:
        seen.wait_for_more()
        with lab.edited(INVENTORY, before, after):
            printed = rollout(lab, "--limit", "lab-1")
            assert printed.count("kept (side by side, 0.0 s without a server)") == 1, printed
            seen.wait_for_more()
            back = lab.corral("revert", "lab-1/tiny-chat", *LAB)
            assert back.returncode == 0, said(back)
            seen.wait_for_more()
    for other in SERVERS[1:]:
        assert corral(lab, "weight", other, "100%") == 0
    assert seen.failures == []
    deploy(lab)
    assert verified(lab)


def test_servers_of_several_hosts_move_at_once_and_cost_no_request(lab: Workspace) -> None:
    """Each changes the gateway, one after the other; the last one is not drained."""
    before = lab.on(GW, CURRENT)
    hub = '"hub_url": _lab.hub_url,'
    with streams(client(lab), ALIAS) as seen:
        seen.wait_for_more()
        with (
            two_moved(lab),
            lab.edited(INVENTORY, F16, F16.replace("8001", "8052")),
            lab.edited(INVENTORY, hub, f'{hub} "waves": (2, "100%"),'),
        ):
            assert "wave 1: lab-1/tiny-chat, lab-2/tiny-f16" in rollout(lab)
            assert ports(lab) == ["8051", "8052", "8053"]
            assert verified(lab)
            seen.wait_for_more()
            # Three independent operators.
            with ThreadPoolExecutor() as operators:
                for back in operators.map(lambda one: lab.corral("revert", one, *LAB), SERVERS):
                    assert back.returncode == 0, said(back)
            assert ports(lab) == ["8001"] * 3
        deploy(lab)
        seen.wait_for_more()
    assert seen.failures == []
    assert lab.on(GW, CURRENT) == before


def test_servers_that_move_and_fail_leave_the_gateway_as_it_was(lab: Workspace) -> None:
    before = lab.on(GW, CURRENT)
    golden = (lab.path / PROFILE).read_text().partition("[[golden]]")[2].splitlines()
    answer = next(line for line in golden if line.startswith("exact"))
    with streams(client(lab), ALIAS) as seen:
        seen.wait_for_more()
        with two_moved(lab), lab.edited(PROFILE, answer, 'exact = "never said"'):
            printed = rollout(lab, code=10)
            assert "golden" in printed
        seen.wait_for_more()
    assert seen.failures == []
    assert lab.on(GW, CURRENT) == before
    assert ports(lab) == ["8001"] * 3
    deploy(lab)
    assert verified(lab)


def test_a_server_that_listens_elsewhere_or_under_another_name_costs_no_request(
    lab: Workspace,
) -> None:
    before = lab.on(GW, CURRENT)
    with streams(client(lab), ALIAS) as seen:
        seen.wait_for_more()
        with lab.edited(INVENTORY, ADDRESS, EVERYWHERE):
            rollout(lab)
            assert serving(lab) == set(SERVERS)
        with (
            lab.edited(INVENTORY, PORT, f'{PORT}, "{OTHER}": {{"port": 8010}}'),
            lab.edited(INVENTORY, CHAT, CHAT.replace('"profile": "tiny-chat"', LONG)),
            lab.edited("catalog/profiles/tiny-long.toml", "model =", f'alias = "{OTHER}"\nmodel ='),
        ):
            rollout(lab)
            assert verified(lab)
            shown = key(lab, name=f"gateway-{OTHER}")
            base = f"http://{lab.layout.address(GATEWAY)}:8010/v1"
            other = client(lab, shown).with_options(base_url=base)
            assert [model.id for model in other.models.list()] == [OTHER]
            seen.wait_for_more()
        rollout(lab)
        seen.wait_for_more()
    assert seen.failures == []
    assert lab.on(GW, CURRENT) == before
    assert verified(lab)


def test_a_change_of_the_gateway_alone_is_a_rollout_of_its_own(lab: Workspace) -> None:
    before = lab.on(GW, CURRENT)
    weights = '{"port": 8000, "weights": {"lab-3/tiny-gpu": 60}}'
    with streams(client(lab), ALIAS) as seen:
        seen.wait_for_more()
        with lab.edited(INVENTORY, PORT, weights):
            printed = rollout(lab, "--limit", GW)
            assert "weight 60" in printed
            assert servers(lab)[SERVERS[2]]["weight"] == 60
            assert "nothing to do" in rollout(lab)
            number = printed.split("rollout ")[1].split(":")[0]
            undone = lab.corral("revert", "--rollout", number)
            assert undone.returncode == 0, said(undone)
            assert lab.on(GW, CURRENT) == before
        seen.wait_for_more()
    assert seen.failures == []
    assert verified(lab)


def test_a_new_key_between_gateway_and_servers_costs_no_request(lab: Workspace) -> None:
    path = lab.layout.keys / GW / f"upstream-{ALIAS}"
    old, new = path.read_text(), f"upstream-{secrets.token_urlsafe(24)}\n"
    path.write_text(new)
    refused = lab.deploy()
    assert refused.returncode != 0
    assert "add it again as the last line" in said(refused)
    with streams(client(lab), ALIAS) as seen:
        seen.wait_for_more()
        # Both keys, only the new one, and back: a server that gets a key knows it by then.
        for text in (new + old, new, old + new, old):
            path.write_text(text)
            rollout(lab)
            assert verified(lab)
            seen.wait_for_more()
    assert seen.failures == []


def test_who_switches_and_dies_leaves_a_gateway_that_goes_back(lab: Workspace) -> None:
    """The timer of an unproved generation; its command is run here before it is due."""
    before = lab.on(GW, CURRENT)
    lab.on(GW, f"""echo '{{"before": "{before}"}}' >/etc/corral/gateway/unproved""")
    assert "was not proved" in lab.corral("verify", GW, "--json", *LAB).stdout
    helper = "python3 -I /usr/local/lib/corral/corral_host.pyz gateway-settle"
    question = '{"folder": "/etc/corral/gateway", "units": "/etc/systemd/system"}'
    assert "serves again" in lab.on(GW, f"{helper} '{question}'")
    assert lab.on(GW, CURRENT) == before
    assert all(complete(client(lab)) for _ in range(3))
    assert verified(lab)
