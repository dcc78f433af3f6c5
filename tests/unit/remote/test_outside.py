"""Servers that answer without a key are asked from the controller: none may answer."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from corral.host.checks import Check
from corral.inventory.hosts import Host
from corral.plan.host import HostPlan
from corral.plan.instance import Endpoint
from corral.remote import outside
from tests.samples import CHAT, host
from tests.samples import plan as llama_plan
from tests.unit.vllm_samples import ASKED, ON_CPU, planner

pytestmark = pytest.mark.slow

# On Linux this machine's loopback too, and reached from 127.0.0.1: two ends, as of two machines.
ADDRESS = "127.0.0.5"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Any answer is one too many."""
        self.send_response(404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    """A server on ADDRESS."""
    with http.server.ThreadingHTTPServer((ADDRESS, 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    """ADDRESS is another machine's."""
    every = outside._is_every_machine
    monkeypatch.setattr(outside, "_is_every_machine", lambda p: p != ADDRESS and every(p))


def checks(port: int, clients: tuple[str, ...] = ("localhost",), **data: Any) -> list[Check]:
    one = host({**ASKED, "port": port}, name="one", **{"ssh_hostname": ADDRESS, **data})
    plan = planner(**ON_CPU).plan_host(one)
    (instance,) = plan.instances
    listens = instance.model_copy(update={"clients": clients})
    return outside.outside_checks(one, plan.model_copy(update={"instances": (listens,)}))


def test_a_server_that_answers_here_is_a_finding(port: int) -> None:
    (found,) = checks(port)
    assert (found.instance, found.check, found.ok) == ("glm", "outside", False)
    assert f"{ADDRESS} port {port}, where POST /invocations needs no key. Next: " in found.detail


def test_each_address_is_asked(port: int) -> None:
    (found,) = checks(port, ssh_hostname="127.0.0.1", member_address=ADDRESS)
    assert not found.ok


def test_a_gateway_that_runs_here_may_be_answered(port: int) -> None:
    (found,) = checks(port, clients=("localhost", "127.0.0.1"))
    assert found.ok


def test_a_port_that_nobody_answers_is_right() -> None:
    with socket.socket() as taken:
        taken.bind((ADDRESS, 0))
        (found,) = checks(taken.getsockname()[1])
    assert found.ok
    assert f"nothing answers this machine at {ADDRESS} port" in found.detail


def test_a_port_that_takes_connections_and_says_nothing_is_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outside, "_SECONDS", 0.1)
    with socket.create_server((ADDRESS, 0)) as silent:
        (found,) = checks(silent.getsockname()[1])
    assert found.ok


def test_a_name_without_an_address_is_no_error(port: int) -> None:
    (found,) = checks(port, ssh_hostname="no-such-host.invalid")
    assert found.ok


def test_this_machine_itself_is_not_asked(port: int) -> None:
    (found,) = checks(port, ssh_hostname="localhost")
    assert found.ok
    assert "any address of the host" in found.detail


def test_servers_whose_key_guards_every_route_are_not_asked() -> None:
    plan: HostPlan = llama_plan(CHAT)
    one: Host = host(CHAT, ssh_hostname=ADDRESS)
    assert outside.outside_checks(one, plan) == []


def test_a_server_on_a_socket_is_not_asked() -> None:
    one = host({"name": "glm", "profile": "vllm"}, ssh_hostname=ADDRESS)
    plan = planner(**ON_CPU, listen="unix").plan_host(one)
    assert plan.instances[0].endpoint == Endpoint(socket="/run/corral-glm/vllm.sock")
    assert outside.outside_checks(one, plan) == []
