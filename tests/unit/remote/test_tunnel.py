"""A port or socket of a host as a socket file here, by ssh(1)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.plan.instance import Endpoint
from corral.remote.ssh import ssh_command
from corral.remote.tunnel import tunnel, tunnel_url
from tests.samples import CHAT, host

ADDRESS = Endpoint(address="0.0.0.0", port=8001)
FORWARDS = "import sys; print('{\"held\": true}', flush=True); sys.stdin.read()"
REFUSES = "import sys; print('administratively prohibited'); sys.exit(255)"


def stand_in(monkeypatch: pytest.MonkeyPatch, script: str) -> list[str]:
    """In place of ssh: what it was asked to forward."""
    asked: list[str] = []

    def command(_: Host, __: list[str], *, forward: str, **___: object) -> list[str]:
        asked.append(forward)
        return [sys.executable, "-c", script]

    monkeypatch.setattr("corral.remote.lease.ssh_command", command)
    return asked


@pytest.mark.parametrize(
    ("endpoint", "there"),
    [
        (ADDRESS, "127.0.0.1:8001"),
        (Endpoint(address="10.0.0.1", port=8001), "10.0.0.1:8001"),
        (Endpoint(address="::", port=8001), "[::1]:8001"),
        (Endpoint(socket="/run/corral-chat/llama.sock"), "/run/corral-chat/llama.sock"),
    ],
)
def test_a_socket_file_of_this_user_leads_there_and_is_removed(
    monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint, there: str
) -> None:
    asked = stand_in(monkeypatch, FORWARDS)
    with tunnel(host(CHAT), endpoint) as opened:
        socket = opened.socket
        assert asked == [f"{socket}:{there}"]
        assert opened.lasts()
        folder = Path(str(socket)).parent
        assert folder.stat().st_mode & 0o077 == 0
        assert len(str(socket)) < 100
        assert tunnel_url(host(CHAT), endpoint) == "http://localhost"
    assert not folder.exists()
    assert not opened.lasts()


def test_what_is_not_forwarded_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, REFUSES)
    with pytest.raises(CorralError, match="administratively prohibited"):
        tunnel(host(CHAT), ADDRESS).__enter__()


def test_this_machine_needs_no_tunnel() -> None:
    here = host(CHAT, name="@local")
    with tunnel(here, ADDRESS) as opened:
        assert (opened.socket, opened.lasts()) == (None, True)
    assert tunnel_url(here, ADDRESS) == "http://127.0.0.1:8001"


def test_a_shared_connection_forwards_nothing_beyond_its_end() -> None:
    command = ssh_command(host(CHAT), ["cat"], forward="/tmp/x/s:127.0.0.1:8001")
    before = command[: command.index("--")]
    for option in ("ControlMaster=no", "ControlPath=none", "ExitOnForwardFailure=yes"):
        assert option in before
    assert before[before.index("-L") + 1] == "/tmp/x/s:127.0.0.1:8001"
    assert "-L" not in ssh_command(host(CHAT), ["cat"])
