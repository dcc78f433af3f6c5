"""How the helper reads HAProxy's answers, and the commands that it sends."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.helper_modules import helper_module

# Output of HAProxy 2.6, without the unused fields at the end.
STATE = (
    "1\n"
    "# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight"
    " srv_iweight srv_fqdn srv_port srvrecord\n"
    "3 small 1 one_chat 10.0.0.1 2 {one} 100 100 - 8001 -\n"
    "3 small 2 two_chat 10.0.0.2 {two} 0 25 25 - 8001 -\n"
)
STAT = (
    "# pxname,svname,scur,check_status,last_chk,\n"
    "small,one_chat,{one},L7OK,HTTP status check returned code <200>,\n"
    "small,two_chat,0,L4CON,Connection refused,\n"
)
PROC = (
    "#<PID>          <type>          <reloads>       <uptime>        <version>\n"
    "700             master          1 [failed: 0]   0d00h10m15s     2.6.12\n"
    "# workers\n702             worker          0               0d00h00m01s     2.6.12\n"
    "# old workers\n{old}# programs\n\n"
)
OLD = "701             worker          1               0d00h10m15s     2.6.12\n"


class FakeMaster:
    """Answers like HAProxy's master, and notes the commands."""

    def __init__(self, *, one: int = 0, two: int = 2, old: bool = False) -> None:
        self.one, self.two, self.old = one, two, old
        self.orders: list[tuple[str, str]] = []

    def ask(self, command: str, worker: str = "@1") -> str:
        if command == "show proc":
            return PROC.format(old=OLD if self.old else "").strip()
        if command == "show servers state":
            return STATE.format(one=self.one, two=self.two).strip()
        if command.startswith("show stat"):
            return STAT.format(one=3 if worker == "@1" else 2).strip()
        self.orders.append((worker, command))
        if command.endswith("state drain"):
            self.one = 8
        return ""


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Any, Any]:
    """gateway and gateway_socket, with their folder here."""
    gateway, socket = helper_module("gateway.control"), helper_module("gateway.socket")
    monkeypatch.setattr(socket, "SERVERS", str(tmp_path / "servers"))
    monkeypatch.setattr(gateway, "LOCK", str(tmp_path / "locks" / "gateway.lock"))
    (tmp_path / "current").mkdir()
    (tmp_path / "current/haproxy.cfg").write_text(
        "  server one_chat 10.0.0.1:9001 weight 100\n  server two_chat two.lan:8001 weight 25\n"
    )
    return gateway, socket


def question(tmp_path: Path, what: str, **details: Any) -> dict[str, Any]:
    return {"do": what, "folder": str(tmp_path), "helper": "/helper", **details}


def test_sessions_of_old_workers_count(
    modules: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, socket = modules
    for old, sessions in ((False, 3), (True, 5)):
        monkeypatch.setattr(socket, "ask", FakeMaster(old=old).ask)
        assert socket.servers()["one_chat"]["sessions"] == sessions


@pytest.mark.parametrize(
    ("bits", "word"), [(0, "ready"), (8, "drain"), (1, "maint"), (9, "maint"), (0x20, "maint")]
)
def test_admin_states_have_words(
    modules: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, bits: int, word: str
) -> None:
    _, socket = modules
    monkeypatch.setattr(socket, "ask", FakeMaster(one=bits, two=0).ask)
    found = socket.servers()
    assert (found["one_chat"]["admin"], found["two_chat"]["up"]) == (word, False)


def test_kept_states_have_the_ports_of_the_configuration(
    modules: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gateway, socket = modules
    monkeypatch.setattr(socket, "ask", FakeMaster(one=8).ask)
    gateway.gateway(question(tmp_path, "save"))
    lines = (tmp_path / "servers").read_text().splitlines()
    assert lines[:2] == STATE.splitlines()[:2]
    assert lines[2:] == [
        "3 small 1 one_chat 10.0.0.1 2 8 100 100 - 9001 -",
        "3 small 2 two_chat 10.0.0.2 2 0 25 25 - 8001 -",
    ]
    gone = "  server two_chat two.lan:8001 weight 25\n"
    (tmp_path / "current/haproxy.cfg").write_text(gone)
    gateway.gateway(question(tmp_path, "save"))
    assert "one_chat" not in (tmp_path / "servers").read_text()


def drain(gateway: Any, tmp_path: Path, *, last: bool = False) -> Any:
    details = {"server": "one_chat", "lease_seconds": 9, "limit_seconds": 0, "last": last}
    return gateway.gateway(question(tmp_path, "drain", **details))


def test_a_drain_has_its_lease_before_it_begins_and_reaches_all_workers(
    modules: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gateway, socket = modules
    master = FakeMaster(old=True)
    monkeypatch.setattr(socket, "ask", master.ask)
    before = ["corral-gateway-lease-one_chat:1.timer", "corral-gateway-lease-one_chat:1.service"]

    def systemd(*arguments: str) -> str:
        if arguments[1] == "list-units":
            assert arguments[-1] == "corral-gateway-lease-one_chat:*"
            return "".join(f"{unit} loaded active waiting 2026\n" for unit in before)
        assert "/usr/bin/python3 -I /helper gateway" in " ".join(arguments)
        master.orders.append(("", arguments[0]))
        return ""

    monkeypatch.setattr(gateway, "output", systemd)
    monkeypatch.setattr(gateway, "stop", lambda units: master.orders.append(("stop", units)))
    assert drain(gateway, tmp_path)["sessions_left"] == 5
    order = "set server small/one_chat state drain"
    # There is a lease at every time, also while one replaces another.
    assert master.orders == [
        ("", "systemd-run"), ("stop", before), ("@!701", order), ("@1", order),
    ]  # fmt: skip


def test_a_lease_says_when_it_ends_and_in_how_many_seconds(
    modules: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, _ = modules
    units = ["corral-gateway-lease-one_chat:1.service", "corral-gateway-lease-one_chat:1.timer"]
    monkeypatch.setattr(gateway, "leases", lambda _: units)
    described = {"ActiveState": "active", "Description": "2026-11-30 12:00:00 UTC"}
    monkeypatch.setattr(gateway, "show", lambda *_: described)
    # 30 s before that.
    monkeypatch.setattr(time, "time", lambda: 1796039970.0)
    found = gateway.lease_of("one_chat")
    assert found == {"until": described["Description"], "lease_seconds": 30.0}
    described["ActiveState"] = "inactive"
    assert gateway.lease_of("one_chat") == {"until": None, "lease_seconds": None}


def test_without_a_lease_nothing_is_drained(
    modules: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gateway, socket = modules
    master, fault = FakeMaster(), helper_module("system.commands").HostError

    def refuse(*_: str) -> None:
        raise fault("no timer")

    monkeypatch.setattr(socket, "ask", master.ask)
    monkeypatch.setattr(gateway, "leases", lambda _: [])
    monkeypatch.setattr(gateway, "output", refuse)
    with pytest.raises(fault, match="no timer"):
        drain(gateway, tmp_path)
    assert master.orders == []


def test_the_last_server_that_serves_is_drained_only_if_that_is_meant(
    modules: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gateway, socket = modules
    master, fault = FakeMaster(two=0), helper_module("system.commands").HostError
    monkeypatch.setattr(socket, "ask", master.ask)
    monkeypatch.setattr(gateway, "output", lambda *_: "")
    assert drain(gateway, tmp_path) == {"last_of": "small"}
    weight = question(tmp_path, "weight", server="one_chat", weight=0)
    with pytest.raises(fault, match="is the last server of small"):
        gateway.gateway(weight)
    assert master.orders == []
    assert drain(gateway, tmp_path, last=True)["sessions_left"] == 3


def test_where_no_gateway_was_deployed_no_server_is_behind_it(
    modules: tuple[Any, Any], tmp_path: Path
) -> None:
    gateway, _ = modules
    asked = {**question(tmp_path, "state"), "folder": str(tmp_path / "absent")}
    assert gateway.gateway(asked)["servers"] == []


def test_a_server_that_it_does_not_know_is_named(
    modules: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gateway, socket = modules
    monkeypatch.setattr(socket, "ask", FakeMaster().ask)
    asked = question(tmp_path, "weight", server="four_chat", weight=1)
    with pytest.raises(helper_module("system.commands").HostError, match="no server four_chat"):
        gateway.gateway(asked)
