"""A key is sent to the instance's own unit, or to nobody."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.unit.helper_modules import helper_module

pytestmark = pytest.mark.slow

listener = helper_module("server.listener")
server = helper_module("server.http")
probe_client = helper_module("server.probe_client")
check = helper_module("checks.verify")
probes = helper_module("checks.server_probes")
HostError = helper_module("system.commands").HostError
UNIT = "corral-chat.service"
# Listens, prints where, accepts on request, and stays; with "gone" it stops listening then.
_LISTENS = """
import os, socket, sys, time
family, at, does = sys.argv[1:]
listening = socket.socket(getattr(socket, family))
if family != "AF_UNIX":
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
listening.bind(at if family == "AF_UNIX" else (at.rpartition(":")[0], int(at.rpartition(":")[2])))
listening.listen()
print(0 if family == "AF_UNIX" else listening.getsockname()[1], flush=True)
if does != "waits":
    kept = listening.accept()
    if does == "gone":
        listening.close()
    print("accepted", flush=True)
time.sleep(60)
"""


class Listening:
    """Processes that listen, and which of them are the unit's."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[str]] = []
        self.mine: set[int] = set()

    def start(
        self, at: str = "127.0.0.1:0", does: str = "accepts", *, mine: bool, family: str = "AF_INET"
    ) -> int:
        """Start a listener; returns its port."""
        process = subprocess.Popen(
            [sys.executable, "-c", _LISTENS, family, at, does], stdout=subprocess.PIPE, text=True
        )
        self.started.append(process)
        if mine:
            self.mine.add(process.pid)
        return int(self.says(process))

    @staticmethod
    def says(process: subprocess.Popen[str]) -> str:
        assert process.stdout
        return process.stdout.readline().strip()


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listening]:
    made = Listening()
    monkeypatch.setattr(listener, "processes_of", lambda unit: made.mine if unit == UNIT else set())
    monkeypatch.setattr(listener, "LOOK_SECONDS", 0)
    yield made
    for process in made.started:
        process.kill()
        process.wait()


def judged(port: int, address: str = "127.0.0.1") -> None:
    with socket.create_connection((address, port)) as link:
        listener.refuse_stranger({"unit": UNIT}, link)


@pytest.mark.parametrize(
    ("family", "at", "address"),
    [
        ("AF_INET", "127.0.0.1:0", "127.0.0.1"),
        ("AF_INET", "0.0.0.0:0", "127.0.0.1"),
        ("AF_INET6", ":::0", "127.0.0.1"),
        ("AF_INET6", "::1:0", "::1"),
    ],
)
@pytest.mark.parametrize("does", ["accepts", "waits"])
def test_the_unit_s_own_server_is_known_wherever_it_listens(
    listening: Listening, family: str, at: str, address: str, does: str
) -> None:
    judged(listening.start(at, does, mine=True, family=family), address)


@pytest.mark.parametrize("does", ["accepts", "waits"])
def test_a_stranger_is_named_with_its_program_its_user_and_what_to_do(
    listening: Listening, does: str
) -> None:
    port = listening.start(does=does, mine=False)
    with pytest.raises(HostError) as fault:
        judged(port)
    pid = listening.started[0].pid
    program = Path(f"/proc/{pid}/comm").read_text().strip()
    user = pwd.getpwuid(os.getuid()).pw_name
    assert str(fault.value).startswith(
        f"port {port} of {UNIT} is answered by pid {pid} ({program}, user {user}), which is no "
        "process of that unit: no key was sent. Next: "
    )
    assert f"`systemctl restart {UNIT}`" in str(fault.value)


def test_who_shares_the_port_with_the_unit_is_a_stranger(listening: Listening) -> None:
    port = listening.start(does="waits", mine=True)
    listening.start(f"127.0.0.1:{port}", "waits", mine=False)
    with pytest.raises(HostError, match="no key was sent"):
        judged(port)


def test_another_address_with_the_same_port_is_nobody_s_business(listening: Listening) -> None:
    port = listening.start(does="waits", mine=True)
    listening.start(f"127.0.0.2:{port}", "waits", mine=False)
    judged(port)


def test_who_accepted_and_left_the_port_to_the_unit_is_found_out(listening: Listening) -> None:
    port = listening.start(does="gone", mine=False)
    with socket.create_connection(("127.0.0.1", port)) as link:
        assert listening.says(listening.started[0]) == "accepted"
        listening.start(f"127.0.0.1:{port}", "waits", mine=True)
        with pytest.raises(HostError, match=f"answered by pid {listening.started[0].pid}"):
            listener.refuse_stranger({"unit": UNIT}, link)


def test_a_unix_socket_is_judged_by_who_listens(listening: Listening, tmp_path: Path) -> None:
    for mine in (True, False):
        path = str(tmp_path / f"{mine}.sock")
        listening.start(path, mine=mine, family="AF_UNIX")
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(path)
            if mine:
                listener.refuse_stranger({"unit": UNIT}, link)
            else:
                with pytest.raises(HostError, match="its socket of corral-chat.service is answer"):
                    listener.refuse_stranger({"unit": UNIT}, link)


def test_a_process_is_a_unit_s_by_systemd_s_own_tree_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = f"/system.slice/{UNIT}"
    trees = {
        f"0::{group}": True,
        f"0::{group}/worker": True,
        f"12:pids:/x\n1:name=systemd:{group}\n0::/": True,
        f"0::{group}-spare.service": False,
        f"0::/user.slice/user-1000.slice/user@1000.service{group}": False,
        f"12:pids:{group}\n1:name=systemd:/user.slice": False,
        "0::/": False,
    }
    monkeypatch.setattr(listener, "Path", lambda _: tmp_path / "cgroup")
    for text, expected in trees.items():
        (tmp_path / "cgroup").write_text(f"{text}\n")
        assert listener.is_in(group, 1) is expected, text


def test_a_unit_that_is_down_has_no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "show", lambda *_: {"ControlGroup": ""})
    assert listener.processes_of(UNIT) == set()


class _Thief(BaseHTTPRequestHandler):
    received: list[str | None] = []

    def do_GET(self) -> None:
        self.received.append(self.headers["Authorization"])
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def thief(listening: Listening) -> Iterator[dict[str, Any]]:
    """An instance whose port belongs to this process, which is not in its unit."""
    _Thief.received.clear()
    assert os.getpid() not in listening.mine
    with ThreadingHTTPServer(("127.0.0.1", 0), _Thief) as impostor:
        threading.Thread(target=impostor.serve_forever, args=(0.02,), daemon=True).start()
        end = {"socket": None, "address": "127.0.0.1", "port": impostor.server_address[1]}
        yield {
            "unit": UNIT, "unit_path": "/x", "endpoint": end, "alias": "m", "metrics": True,
            "keyed_routes": [], "uses_gpu": False,
        }  # fmt: skip
        impostor.shutdown()


def test_no_request_with_a_key_reaches_a_stranger(
    thief: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = f"answered by pid {os.getpid()} "
    with pytest.raises(HostError, match=whole):
        server.call(thief, "GET", "/props", key="secret")
    with pytest.raises(HostError, match=whole):
        probe_client.ask(thief, "POST /completion", {}, "secret")
    assert server.call(thief, "GET", "/health")[0] == 200
    monkeypatch.setattr(probes, "first_key", lambda _: "secret")
    rows = {row["check"]: row for row in check.check_instance(thief)}
    for name in ("model", "slots", "completion", "stream", "metrics"):
        assert not rows[name]["ok"]
        assert whole in rows[name]["detail"]
    time.sleep(0.05)
    assert set(_Thief.received) == {None}


def test_the_key_goes_to_the_unit(thief: dict[str, Any], listening: Listening) -> None:
    listening.mine.add(os.getpid())
    assert server.call(thief, "GET", "/props", key="secret")[0] == 200
    assert probe_client.ask(thief, "POST /completion", {}, "secret")[0] == 200
    assert _Thief.received == ["Bearer secret"] * 2
