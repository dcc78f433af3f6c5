"""Disturbed downloads are resumed, completed and proved."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass

import pytest

from lab.faults import Rule
from tests.lab.observed import MODELS, digests, has_quant
from tests.lab.waiting import PATIENCE_SECONDS, kill, wait_for
from tests.lab.workspace import Workspace

SHARD = "Tiny-GLM-MoE-F16-00001-of-00002.gguf"
SHARD_BYTES = 326_848
SLOW = Rule(match=f"/cdn/*{SHARD}", kind="slow", bytes_per_second=40_000, times=1)
ARRIVED = f"find {MODELS}/.staging -type f -size +100k -name '*[0-9a-f]'"
FETCHING = "systemctl is-active --quiet corral-job-fetch"
_SENT = re.compile(rf"GET /cdn/\S*{SHARD} \d+ range=(\S+) bytes=(\d+)")


@dataclass(frozen=True)
class Sent:
    """One answer with bytes of the shard, from the hub's access log."""

    range: str
    size_bytes: int

    @property
    def is_rest(self) -> bool:
        """Whether the range begins after the first byte."""
        return re.match("bytes=[1-9]", self.range) is not None


def sent(fleet: Workspace, since: int) -> list[Sent]:
    """What the hub sent of the shard after the first ``since`` characters of its log."""
    log = (fleet.layout.log / "hub.log").read_text()[since:]
    return [Sent(found[1], int(found[2])) for found in _SENT.finditer(log)]


def forget_the_shard(fleet: Workspace) -> int:
    """Remove one shard under lab-2's running server; returns the length of the hub's log."""
    fleet.on("lab-2", f"find {MODELS} -name '{SHARD}*' -delete; rm -rf {MODELS}/.staging")
    assert SHARD not in digests(fleet, "lab-2", MODELS, "*.gguf")
    return len((fleet.layout.log / "hub.log").read_text())


def deploy_until_bytes_arrive(fleet: Workspace) -> subprocess.Popen[str]:
    """Start a deploy and wait until its download of the shard has begun."""
    running = fleet.start_deploy("--limit", "lab-2")
    wait_for(lambda: bool(fleet.try_on("lab-2", ARRIVED).stdout), "bytes arrive on lab-2")
    return running


def assert_whole(fleet: Workspace, *, pid: int) -> None:
    """The shard is complete, by this test's own digest, and its server never stopped."""
    assert has_quant(fleet, "lab-2", "F16")
    assert fleet.pid("lab-2", "tiny-f16") == pid


@pytest.mark.parametrize("code", [503, 429])
def test_a_busy_hub_is_asked_again(fleet: Workspace, code: int) -> None:
    pid = fleet.pid("lab-2", "tiny-f16")
    forget_the_shard(fleet)
    busy = Rule.model_validate({"match": f"*{SHARD}", "kind": "status", "code": code, "times": 3})
    with fleet.hub_faults(busy):
        deployed = fleet.deploy("--limit", "lab-2")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    assert_whole(fleet, pid=pid)


def test_a_cut_connection_is_resumed_where_it_stopped(fleet: Workspace) -> None:
    pid, since = fleet.pid("lab-2", "tiny-f16"), forget_the_shard(fleet)
    with fleet.hub_faults(Rule(match=f"/cdn/*{SHARD}", kind="cut", after_bytes=200_000, times=1)):
        deployed = fleet.deploy("--limit", "lab-2")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    assert_whole(fleet, pid=pid)
    first, second = sent(fleet, since)
    assert first.size_bytes == 200_000
    assert second.is_rest
    assert second.size_bytes < SHARD_BYTES


def test_a_killed_deploy_leaves_the_download_going_and_the_next_one_finds_it(
    fleet: Workspace,
) -> None:
    pid, since = fleet.pid("lab-2", "tiny-f16"), forget_the_shard(fleet)
    with fleet.hub_faults(SLOW):
        running = deploy_until_bytes_arrive(fleet)
        kill(running)
        fleet.on("lab-2", FETCHING)
        deployed = fleet.deploy("--limit", "lab-2")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    assert_whole(fleet, pid=pid)
    assert [answer.size_bytes for answer in sent(fleet, since)] == [SHARD_BYTES]


def test_a_killed_download_is_reported_and_resumed_by_the_next_deploy(fleet: Workspace) -> None:
    pid, since = fleet.pid("lab-2", "tiny-f16"), forget_the_shard(fleet)
    with fleet.hub_faults(SLOW):
        running = deploy_until_bytes_arrive(fleet)
        fleet.on("lab-2", "systemctl kill --signal=KILL corral-job-fetch")
        output, _ = running.communicate(timeout=PATIENCE_SECONDS)
    assert running.returncode == 1
    assert "fetch failed" in output
    assert "Traceback" not in output
    assert "Next: " in output
    deployed = fleet.deploy("--limit", "lab-2")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    assert_whole(fleet, pid=pid)
    # aria2 may request the whole file first, to learn its size, and close the connection: the hub
    # logs that answer before or after the one with the rest.
    wait_for(lambda: any(one.is_rest for one in sent(fleet, since)), "the rest is logged")
    assert all(one.size_bytes < SHARD_BYTES for one in sent(fleet, since) if one.is_rest)
