"""Hosts that reach a served bundle by ssh connections of the controller alone."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.offline import by_ssh
from corral.offline.by_ssh import Way, leading_here, ways
from corral.remote.ssh import ssh_command
from tests.samples import CHAT, host
from tests.unit.swarm_members import wait_for

FORWARDS = "import sys; print('{\"held\": true}', flush=True); sys.stdin.read()"
ENDS = "print('{\"held\": true}', flush=True)"
REFUSED = (
    "print('Error: remote port forwarding failed for listen port 8090'); raise SystemExit(255)"
)


def on_loopback(name: str = "lab-1", url: str = "http://127.0.0.1:8090/") -> Host:
    return host(CHAT, name=name, bundle={"folder": "/disk", "url": url})


def stand_in(monkeypatch: pytest.MonkeyPatch, *scripts: str) -> list[str]:
    """In place of ssh, one script after the other; what it was asked to forward."""
    asked: list[str] = []

    def command(_: Host, __: list[str], *, back: str, **___: object) -> list[str]:
        asked.append(back)
        return [sys.executable, "-c", scripts[min(len(asked), len(scripts)) - 1]]

    monkeypatch.setattr("corral.remote.lease.ssh_command", command)
    monkeypatch.setattr(by_ssh, "_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(by_ssh, "_WATCH_SECONDS", 0.02)
    return asked


def test_hosts_with_their_bundle_on_their_own_loopback_are_led_here() -> None:
    other = on_loopback("lab-2", "http://10.20.0.1:8090")
    found = ways([host(CHAT), on_loopback(), other], where="x.py")
    assert found == [Way(on_loopback(), "127.0.0.1", 8090)]
    assert ways([on_loopback(url="http://localhost")], where="x.py")[0].port == 80
    with_tls = on_loopback("lab-2", "https://127.0.0.1:8090")
    with pytest.raises(CorralError, match="no host has") as error:
        ways([host(CHAT), other, with_tls], where="x.py")
    assert "http://127.0.0.1:8090" in error.value.next_step
    third = on_loopback("lab-3", "http://127.0.0.1:8091")
    with pytest.raises(CorralError, match="several ports: 8090, 8091"):
        ways([on_loopback(), third], where="x.py")


def test_ssh_is_asked_for_a_port_of_the_hosts_loopback() -> None:
    command = ssh_command(host(CHAT), ["cat"], back="127.0.0.1:8090:127.0.0.1:8090")
    before = command[: command.index("--")]
    assert before[before.index("-R") + 1] == "127.0.0.1:8090:127.0.0.1:8090"
    assert "ExitOnForwardFailure=yes" in before
    assert "-L" not in before


def test_a_connection_that_ends_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, lines = stand_in(monkeypatch, ENDS, FORWARDS), list[str]()
    with leading_here([Way(on_loopback(), "127.0.0.1", 8090)], "127.0.0.1:9", lines.append):
        wait_for(lambda: len(lines) == 3, "lines")
    assert set(asked) == {"127.0.0.1:8090:127.0.0.1:9"}
    assert lines[0] == lines[2] == "lab-1: reaches the bundle at 127.0.0.1:8090, by ssh"
    assert lines[1] == "lab-1: its ssh connection ended and is opened again"


def test_a_port_that_is_taken_there_is_reported_once_and_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, lines = stand_in(monkeypatch, REFUSED, REFUSED, FORWARDS), list[str]()
    with leading_here([Way(on_loopback(), "::1", 8090)], "127.0.0.1:9", lines.append):
        wait_for(lambda: len(lines) == 2, "lines")
    assert asked[0] == "[::1]:8090:127.0.0.1:9"
    assert "does not forward port 8090: it is taken there, or forbidden" in lines[0]
    assert "ss -ltnp sport = :8090" in lines[0]
    assert "reaches the bundle" in lines[1]


def test_the_machine_of_the_controller_itself_needs_no_ssh(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = stand_in(monkeypatch, FORWARDS)
    with leading_here([Way(on_loopback("@local"), "127.0.0.1", 8090)], "127.0.0.1:9", print):
        pass
    assert asked == []


@pytest.mark.parametrize(("address", "held"), [("127.0.0.1", True), ("0.0.0.0", False)])
def test_a_port_that_strangers_would_reach_is_not_kept(address: str, held: bool) -> None:
    with socket.create_server((address, 0)) as server:
        port = server.getsockname()[1]
        command = ["sh", "-c", by_ssh._HOLD, "sh", str(port)]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    assert ('"held": true' in done.stdout) is held
    assert (done.returncode == 0) is held
    assert ("GatewayPorts" in done.stdout) is not held
