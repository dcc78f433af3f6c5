"""While a server is down nobody else answers from its port: tried in a network namespace."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.samples import ROOT
from tests.unit.helper_modules import helper_module

pytestmark = pytest.mark.slow

reserve = helper_module("packets.reserve")
reserve_switch = helper_module("packets.reserve_switch")
Activation = helper_module("activation.activation").Activation
check = helper_module("checks.unit_probes")
HostError = helper_module("system.commands").HostError
DYNAMIC, LOCAL, ROOT_USER = 61500, 1000, 0
# In the new namespace: apply the rules, let each user listen, and see who gets a connection.
_TRIAL = """
import os, socket, subprocess, sys, time
sys.path.insert(0, sys.argv[1])
from corral_host.packets import reserve
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
with open("/proc/sys/net/ipv4/tcp_syncookies", "w") as cookies:
    cookies.write(sys.argv[2])
if sys.argv[3] == "laid":
    reserve.lay(reserve.RULES.format(
        table=reserve.TABLE, ports="8001, 18001", users=reserve.MAY_SERVE
    ))
for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    for port in (8001, 9001):
        for user in map(int, sys.argv[4:]):
            child = os.fork()
            if child == 0:
                os.setgid(user)
                os.setuid(user)
                listening = socket.socket(family)
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listening.bind((address, port))
                listening.listen()
                time.sleep(30)
            link, connected = socket.socket(family), False
            for _ in range(50):
                link.settimeout(0.5)
                try:
                    link.connect((address, port))
                    connected = True
                    break
                except ConnectionRefusedError:
                    link.close()
                    link = socket.socket(family)
                    time.sleep(0.02)
                except socket.timeout:
                    break
            link.close()
            os.kill(child, 9)
            os.wait()
            if connected:
                print(user, port)
print("reserved", *reserve.in_force())
"""

# In the new namespace: a user asks by UDP, as for names.
_UDP = """
import os, socket, subprocess, sys
sys.path.insert(0, sys.argv[1])
from corral_host.packets import reserve
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
reserve.lay(reserve.RULES.format(table=reserve.TABLE, ports="8001", users=reserve.MAY_SERVE))
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
server.settimeout(5)
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
try:
    client.sendto(b"name", ("127.0.0.1", 53))
except PermissionError:
    sys.exit("dropped")
print(server.recv(16).decode())
"""


def printed_alone(program: str, *arguments: str) -> str:
    """What a program of Python prints in a network of its own; it must end with 0."""
    if os.geteuid() != 0:
        pytest.skip("only root makes a network, and packet rules in it")
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", program, *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def connected(*users: int, cookies: int = 1, laid: bool = True) -> tuple[set[tuple[int, int]], str]:
    """Users and addresses whose listeners got a connection, by IPv4 or IPv6; and reserved ports."""
    arguments = [str(ROOT / "files"), str(cookies), "laid" if laid else "none", *map(str, users)]
    *pairs, last = printed_alone(_TRIAL, *arguments).splitlines()
    return {(int(user), int(port)) for user, port in map(str.split, pairs)}, last


def test_a_served_port_answers_for_servers_alone_and_others_for_anybody() -> None:
    found, reserved = connected(ROOT_USER, LOCAL, DYNAMIC)
    free = {(user, 9001) for user in (ROOT_USER, LOCAL, DYNAMIC)}
    assert found == {(ROOT_USER, 8001), (DYNAMIC, 8001), *free}
    assert reserved == "reserved 8001 18001"


def test_other_protocols_than_tcp_are_left_alone() -> None:
    """Else apt's own user finds no mirror once a host serves."""
    assert printed_alone(_UDP, str(ROOT / "files"), str(LOCAL)) == "name\n"


def test_without_the_rules_anybody_answers() -> None:
    found, reserved = connected(LOCAL, laid=False)
    assert found == {(LOCAL, 8001), (LOCAL, 9001)}
    assert reserved == "reserved"


def test_syn_cookies_open_no_door() -> None:
    found, _ = connected(LOCAL, cookies=2)
    assert found == {(LOCAL, 9001)}


class Host:
    """A host with scripted systemd and nft; its files are real."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.said: list[tuple[str, ...]] = []
        self.laid: list[int] = []
        self.state = "enabled"

    @property
    def folder(self) -> Path:
        """Folder of its only instance."""
        return self.root / "instances" / "chat"

    def serve(self, port: int) -> None:
        """Let a generation on this port serve."""
        (self.folder / "current").mkdir(parents=True, exist_ok=True)
        (self.folder / "current" / "plan.json").write_text(json.dumps(self.instance(port)))

    def file(self) -> str:
        return (self.root / "etc" / "served-ports.nft").read_text()

    def plan(self, *ports: int | None) -> dict[str, Any]:
        paths = {"keys": str(self.root / "etc" / "keys"), "units": str(self.root)}
        return {"paths": paths, "instances": [self.instance(port) for port in ports]}

    def task(self, before: int, after: int) -> Any:
        """An activation that moves the instance."""
        paths = {"keys": str(self.root / "etc" / "keys")}
        spec = {"instance": self.instance(after), "paths": paths}
        return Activation(spec, {}, previous=self.instance(before))

    def instance(self, port: int | None) -> dict[str, Any]:
        spare = {"endpoint": {"port": port + 10000}} if port else None
        folder = str(self.folder)
        return {"endpoint": {"port": port}, "activation": {"spare": spare}, "folder": folder}

    def lay(self, rules: str) -> None:
        arguments = " ".join(line for line in rules.splitlines() if "sport" in line).split()
        self.laid = sorted(int(w.strip("{},")) for w in arguments if w.strip("{},").isdigit())


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host(tmp_path)
    monkeypatch.setattr(reserve, "output", lambda *arguments: host.said.append(arguments))
    monkeypatch.setattr(reserve, "quiet", lambda *arguments: host.said.append(arguments))
    monkeypatch.setattr(reserve, "lay", host.lay)
    monkeypatch.setattr(reserve_switch, "lay", host.lay)
    monkeypatch.setattr(reserve, "in_force", lambda: host.laid)
    monkeypatch.setattr(reserve, "unusable", lambda: None)
    monkeypatch.setattr(reserve, "unit_file_state", lambda _: host.state)
    monkeypatch.setattr(reserve.shutil, "which", lambda _: "/usr/sbin/nft")
    return host


def test_ports_are_those_of_servers_and_spares(played: Host) -> None:
    assert reserve.ports(played.plan(8002, None, 8001)) == [8001, 8002, 18001, 18002]


def test_what_is_reserved_is_reserved_for_each_boot_and_then_left_alone(played: Host) -> None:
    plan = played.plan(8001)
    assert not reserve.is_reserved(plan)
    assert reserve.reserve(plan) == {"ports": [8001, 18001]}
    assert reserve.is_reserved(plan)
    unit = (played.root / reserve.UNIT).read_text()
    assert f"ExecStart=/usr/sbin/nft -f {played.root}/etc/served-ports.nft\n" in unit
    assert ("systemctl", "enable", "--quiet", reserve.UNIT) in played.said
    rules = played.root / "etc" / "served-ports.nft"
    assert "{ 8001, 18001 }" in rules.read_text()
    assert stat.S_IMODE(rules.stat().st_mode) == 0o600


@pytest.mark.parametrize("lost", ["rules", "file", "unit", "another port"])
def test_what_is_lost_or_another_is_laid_again(played: Host, lost: str) -> None:
    reserve.reserve(played.plan(8001))
    if lost == "rules":
        played.laid = []
    elif lost == "file":
        (played.root / "etc" / "served-ports.nft").unlink()
    elif lost == "unit":
        (played.root / reserve.UNIT).write_text("")
    plan = played.plan(8002 if lost == "another port" else 8001)
    assert not reserve.is_reserved(plan)
    reserve.reserve(plan)
    assert reserve.is_reserved(plan)


def test_what_is_staged_takes_no_reserved_port_from_what_serves(played: Host) -> None:
    played.serve(8001)
    plan = played.plan(8051)
    assert reserve.reserve(plan) == {"ports": [8001, 8051, 18001, 18051]}
    assert reserve.is_reserved(plan)


def begin(task: Any) -> None:
    task.reserves = reserve_switch.unreserved(task)
    reserve_switch.hold(task)


def test_a_server_that_moved_leaves_its_ports_to_anybody_once_it_is_kept(played: Host) -> None:
    played.serve(8001)
    reserve.reserve(played.plan(8051))
    task = played.task(8001, 8051)
    begin(task)
    assert played.laid == [8001, 8051, 18001, 18051]
    # After a revert, the ports of the staged generation stay reserved.
    reserve_switch.release_ports(task, kept=False)
    assert played.laid == [8001, 8051, 18001, 18051]
    played.serve(8051)
    reserve_switch.release_ports(task, kept=True)
    assert played.laid == [8051, 18051]
    # Nothing is left for the next deploy.
    assert reserve.is_reserved(played.plan(8051))
    # And a revert, to a port that no current plan has.
    back = played.task(8051, 8001)
    begin(back)
    assert played.laid == [8001, 8051, 18001, 18051]
    reserve_switch.release_ports(back, kept=False)
    assert played.laid == [8051, 18051]
    begin(back)
    played.serve(8001)
    reserve_switch.release_ports(back, kept=True)
    assert played.laid == [8001, 18001]
    assert "{ 8001, 18001 }" in played.file()
    assert reserve.is_reserved(played.plan(8001))


def test_a_port_that_another_instance_serves_on_by_now_stays_reserved(played: Host) -> None:
    reserve.reserve(played.plan(8001, 8051))
    other = played.root / "instances" / "other" / "current"
    other.mkdir(parents=True)
    (other / "plan.json").write_text(json.dumps(played.instance(8001)))
    reserve_switch.release_ports(played.task(8001, 8051), kept=True)
    assert played.laid == [8001, 8051, 18001, 18051]


def kept_here(host: Host, name: str, *ports: int) -> None:
    """An instance with a generation on each port."""
    for port in ports:
        folder = host.root / "instances" / name / "generations" / str(port)
        folder.mkdir(parents=True)
        (folder / "plan.json").write_text(json.dumps(host.instance(port)))


def test_a_removed_instance_leaves_its_ports_to_anybody(played: Host) -> None:
    """But for those that another instance has, if only in a generation that does not serve yet."""
    paths = {**played.plan()["paths"], "state": str(played.root)}
    kept_here(played, "old", 8001, 8002)
    kept_here(played, "chat", 8003, 8002)
    reserve.reserve(played.plan(8001, 8002, 8003))
    reserve_switch.release_removed(paths, "old")
    assert played.laid == [8002, 8003, 18002, 18003]
    assert reserve.is_reserved(played.plan(8002, 8003))
    shutil.rmtree(played.root / "instances" / "old")
    # With the last instance the rules go.
    reserve_switch.release_removed(paths, "chat")
    assert reserve.is_reserved(played.plan())
    assert not list(played.root.glob("*.service"))


def test_the_last_removed_instance_leaves_the_gateways_ports_reserved(
    played: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = type("User", (), {"pw_uid": 109})
    monkeypatch.setattr(reserve.pwd, "getpwnam", {"haproxy": user}.__getitem__)
    paths = {**played.plan()["paths"], "state": str(played.root)}
    kept_here(played, "old", 8001)
    reserve.reserve({**played.plan(8001), "gateway": of_gateway()})
    reserve_switch.release_removed(paths, "old")
    assert reserve.is_reserved({**played.plan(), "gateway": of_gateway()})
    assert played.laid == [8000, 8003, 8404]


def test_a_removal_goes_on_where_the_rules_cannot_be_changed(
    played: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: str) -> None:
        raise HostError("nft: no such device")

    paths = {**played.plan()["paths"], "state": str(played.root)}
    kept_here(played, "old", 8001)
    kept_here(played, "chat", 8002)
    reserve.reserve(played.plan(8001, 8002))
    monkeypatch.setattr(reserve_switch, "lay", broken)
    reserve_switch.release_removed(paths, "old")
    assert "still reserved, until the next deploy" in "".join(capsys.readouterr())


def test_a_host_without_rules_gets_none_by_a_switch(played: Host) -> None:
    begin(played.task(8001, 8051))
    reserve_switch.release_ports(played.task(8001, 8051), kept=True)
    assert played.laid == []


def test_rules_that_no_boot_would_lay_are_laid_again(played: Host) -> None:
    reserve.reserve(played.plan(8001))
    played.state = "disabled"
    assert not reserve.is_reserved(played.plan(8001))
    reported = f"not after a boot: {reserve.UNIT} is disabled"
    assert check.check_reserved(played.instance(8001)) == ("reserved", False, reported)


def test_a_host_without_ports_has_no_rules(played: Host) -> None:
    assert reserve.is_reserved(played.plan(None))
    reserve.reserve(played.plan(8001))
    assert not reserve.is_reserved(played.plan(None))
    assert reserve.reserve(played.plan(None)) == {"ports": []}
    assert reserve.is_reserved(played.plan(None))
    assert not list(played.root.glob("*.service"))
    assert ("disable", "--now", "--quiet", reserve.UNIT) in played.said, "also of an active unit"


def test_a_host_that_takes_no_rules_is_left_alone_once_nft_is_there(
    played: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reserve, "unusable", lambda: "Operation not permitted")
    assert reserve.is_reserved(played.plan(8001))
    assert reserve.reserve(played.plan(8001)) == {"ports": []}
    assert played.said == []
    monkeypatch.setattr(reserve.shutil, "which", lambda _: None)
    assert not reserve.is_reserved(played.plan(8001))


def test_verify_says_whether_a_port_is_reserved(
    played: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = played.instance(8001)
    reserved = "reserved", False, "any user may answer on port 8001"
    assert check.check_reserved(instance) == reserved
    monkeypatch.setattr(reserve, "unusable", lambda: "not permitted")
    assert check.check_reserved(instance)[1:] == (
        True,
        "no packet rules on this host: not permitted",
    )
    played.laid = [8001]
    assert check.check_reserved(instance)[1:] == (True, "port 8001 answers for servers alone")


def of_gateway(*, tls: bool = False) -> dict[str, Any]:
    pools = [{"port": 8000}, {"port": 8003}]
    return {"tls": tls, "metrics_port": 8404, "pools": pools}


def test_a_gateways_ports_are_haproxys(played: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    user = type("User", (), {"pw_uid": 109})
    monkeypatch.setattr(reserve.pwd, "getpwnam", {"haproxy": user}.__getitem__)
    alone = {**played.plan(), "gateway": of_gateway()}
    assert reserve.reserve(alone) == {"ports": [8000, 8003, 8404]}
    assert reserve.is_reserved(alone)
    text = (played.root / "etc" / "served-ports.nft").read_text()
    assert text.count("chain ") == 1
    assert "meta skuid { 0, 109 } accept" in text
    both = {**played.plan(8001), "gateway": of_gateway()}
    assert not reserve.is_reserved(both)
    reserve.reserve(both)
    first, second = reserve.rules(both).split("chain gateway")
    assert "{ 8001, 18001 }" in first
    assert "{ 0, 61184-65519 }" in first
    assert "{ 8000, 8003, 8404 }" in second
    assert "{ 0, 109 }" in second


def test_before_haproxy_is_there_only_root_may_answer_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reserve.pwd, "getpwnam", {}.__getitem__)
    assert reserve.gateway_users() == "{ 0 }"


def test_a_certificate_is_enough_for_a_gateway(played: Host) -> None:
    """Clients see by the certificate who answers, and that gateway is the one open to the world."""
    assert reserve.ports({**played.plan(8001), "gateway": of_gateway(tls=True)}) == [8001, 18001]


def test_both_chains_are_laid_at_once(tmp_path: Path) -> None:
    plan = {"instances": [Host(tmp_path).instance(8001)], "gateway": of_gateway()}
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from corral_host.packets import reserve\n"
    )
    program += f"reserve.lay(reserve.rules({plan!r})); print(reserve.in_force())"
    printed = printed_alone(program, str(ROOT / "files"))
    assert printed.strip() == "[8000, 8001, 8003, 8404, 18001]"
