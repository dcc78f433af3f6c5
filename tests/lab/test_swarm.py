"""Two hosts take a file from each other: once from the hub, and nobody else is answered.

lab-1 and lab-3 share one file. Without the rules of packets the tests of strangers fail.
"""

from __future__ import annotations

import json
import re
import shlex
import socket
from typing import Any

import pytest

from lab.faults import Rule
from tests.lab.observed import MODELS, digests, has_quant
from tests.lab.waiting import PATIENCE_SECONDS, job_log, wait_for, wait_for_end, wait_on
from tests.lab.workspace import Workspace

FILE = "Tiny-GLM-MoE-Q8_0.gguf"
FILE_BYTES = 357_088
HELPER = "/usr/local/lib/corral/corral_host.pyz"
HOSTS = ("lab-1", "lab-3")
SWARM = ("--data", "swarm=true")
SLOW = Rule(match=f"/cdn/*{FILE}", kind="slow", bytes_per_second=40_000, times=1)
ARRIVED = f"find {MODELS}/.staging -type f -size +50k -name '*[0-9a-f]' | grep -q ."
RULES = "nft list table inet corral_swarm >/dev/null 2>&1"
SERVICE = "curl --silent --show-error --max-time 3 http://{address}:{port}/table/x"
# The user of aria2, and what there is for it of these.
SANDBOX = (
    "systemctl show --value --property=UID corral-swarm;"
    " cd /proc/$(systemctl show --value --property=MainPID corral-swarm)/root &&"
    " find root etc/corral var/lib/corral opt -maxdepth 1 -printf '/%p '"
)


def forget(fleet: Workspace) -> int:
    """Remove the file under running servers; returns the length of the hub's log."""
    for host in HOSTS:
        fleet.on(host, f"find {MODELS} -name '{FILE}*' -delete; rm -rf {MODELS}/.staging")
    return len((fleet.layout.log / "hub.log").read_text())


def sent_bytes(fleet: Workspace, since: int) -> int:
    log = (fleet.layout.log / "hub.log").read_text()[since:]
    return sum(int(found[1]) for found in re.finditer(rf"GET /cdn/\S*{FILE} .* bytes=(\d+)", log))


def connects_from_here(fleet: Workspace, port: int) -> bool:
    """Whether this machine, which is no member, gets through to lab-1."""
    try:
        socket.create_connection((str(fleet.layout.address(1)), port), timeout=3).close()
    except TimeoutError:
        return False
    return True


def test_a_file_leaves_the_hub_once_and_strangers_get_no_answer(fleet: Workspace) -> None:
    pid, since = fleet.pid("lab-3", "tiny-gpu"), forget(fleet)
    address = str(fleet.layout.address(1))
    with fleet.hub_faults(SLOW):
        running = fleet.start_deploy(*SWARM)
        wait_on(fleet, "lab-1", ARRIVED, "bytes of the hub")
        answer = fleet.on("lab-3", SERVICE.format(address=address, port=6880))
        assert '"fetching"' in answer
        user, seen = fleet.on("lab-1", SANDBOX).split("\n", 1)
        strangers = [connects_from_here(fleet, port) for port in (6880, 6881)]
        output, _ = running.communicate(timeout=PATIENCE_SECONDS)
    assert running.returncode == 0, output
    assert strangers == [False, False]
    assert int(user) > 0
    empty = {"/root", "/etc/corral", "/opt"}
    assert set(seen.split()) == {"/var/lib/corral", "/var/lib/corral/models", *empty}
    for host in HOSTS:
        assert has_quant(fleet, host, "Q8_0")
        assert fleet.try_on(host, RULES).returncode != 0
    assert sent_bytes(fleet, since) == FILE_BYTES
    assert "Group: " in output
    assert fleet.pid("lab-3", "tiny-gpu") == pid


def test_a_killed_first_host_fails_alone_and_its_rules_are_removed(fleet: Workspace) -> None:
    forget(fleet)
    with fleet.hub_faults(SLOW):
        running = fleet.start_deploy(*SWARM)
        wait_on(fleet, "lab-1", ARRIVED, "bytes of the hub")
        fleet.on("lab-1", "systemctl kill --signal=KILL corral-job-fetch")
        output, _ = running.communicate(timeout=PATIENCE_SECONDS)
    assert running.returncode == 1
    assert "[lab-1] " in output
    assert "Traceback" not in output
    assert has_quant(fleet, "lab-3", "Q8_0")
    wait_for_end(fleet, "lab-1", "fetch", "the job ends")
    wait_for(lambda: fleet.try_on("lab-1", RULES).returncode != 0, "its rules are removed")


def test_an_archive_goes_from_host_to_host_and_leaves_nothing_else(fleet: Workspace) -> None:
    """The jobs of a deploy for a release that both hosts lack, for any file."""
    archives, name = "/var/lib/corral/archives", "swarm.tar.zst"
    fleet.on("lab-1", f"head -c 3000000 /dev/urandom >{archives}/{name}")
    digest = digests(fleet, "lab-1", archives, name)[name]
    archive = {"path": f"{archives}/{name}", "size_bytes": 3_000_000, "sha256": digest}
    for host, files in (("lab-1", ([archive], [])), ("lab-3", ([], [archive]))):
        spec = {
            "held": files[0], "archives": files[1], "paths": {"state": "/var/lib/corral"},
            "swarm": swarm_of(fleet, host),
        }  # fmt: skip
        job = json.dumps({"kind": "share", "spec": spec, "by": "test", "at": ""})
        fleet.on(host, f"echo {shlex.quote(job)} | python3 -I {HELPER} start fetch")
    for host in HOSTS:
        wait_for_end(fleet, host, "fetch", "its job ends")
    result = json.loads(fleet.on("lab-3", "cat /var/lib/corral/jobs/fetch/result.json"))
    assert result["answer"] == {"arrived": [digest]}, job_log(fleet, "lab-3", "fetch")
    assert digests(fleet, "lab-3", archives, name) == {name: digest}
    owner = fleet.on("lab-3", f"stat -c %U:%a {archives}/{name}; rm {archives}/{name}")
    assert owner.strip() == "root:644"
    for host in HOSTS:
        fleet.on(host, f"! test -e {archives}/swarm; ! systemctl is-active -q corral-swarm")
    fleet.on("lab-1", f"rm {archives}/{name}")


def swarm_of(fleet: Workspace, host: str) -> dict[str, Any]:
    """The swarm of a host, as a plan has it."""
    peers = [
        {"name": one, "address": str(fleet.layout.address(int(one[-1]))), "port": 6880}
        for one in HOSTS
    ]
    return {
        "name": host, "peers": peers, "expected": list(HOSTS), "from_hub": 1, "connections": 40,
        "upload_bytes_per_second": 0, "upload_seconds": 60,
    }  # fmt: skip


@pytest.fixture(autouse=True)
def without_rules(fleet: Workspace) -> None:
    """No rules are left of an earlier test."""
    for host in HOSTS:
        assert fleet.try_on(host, RULES).returncode != 0
