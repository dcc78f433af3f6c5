"""A trial on a real host: its unit is confined, answers by a socket, and ends with its job."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from corral.project import helper_package
from corral.remote.helper_archive import archive
from tests import fake_vllm
from tests.lab.waiting import wait_for
from tests.lab.workspace import Workspace
from tests.samples import ROOT

HOST = "lab-1"
HELPER, SERVER, LOG = "/opt/trial/helper.pyz", "/opt/trial/fake_vllm.py", "/opt/trial/trial.log"
UNIT = "corral-job-trial.air.service"
JOB = "corral-job-trial-air.service"
RESULT, JOB_LOG = (f"/var/lib/corral/jobs/trial-air/{name}" for name in ("result.json", "log"))
ENDED = ("inactive", "failed")
PART_CHARACTERS = 64_000


@pytest.fixture(scope="module")
def lab(bare_lab: Workspace) -> Workspace:
    """A host with the helper and the server; nothing else of Corral is needed."""
    files = {
        HELPER: archive(helper_package(ROOT)),
        SERVER: Path(fake_vllm.__file__).read_bytes(),
        LOG: (ROOT / "tests" / "data" / "vllm" / "trial-log.txt").read_bytes(),
    }
    bare_lab.on(HOST, "mkdir -p /opt/trial && chmod 755 /opt/trial")
    for path, content in files.items():
        copy(bare_lab, path, base64.b64encode(content).decode())
    return bare_lab


def copy(lab: Workspace, path: str, text: str) -> None:
    """Write a file from base64, in parts that fit into an argument."""
    lab.on(HOST, f": >{path}.b64")
    for at in range(0, len(text), PART_CHARACTERS):
        lab.on(HOST, f"printf %s {text[at : at + PART_CHARACTERS]} >>{path}.b64")
    lab.on(HOST, f"base64 -d {path}.b64 >{path} && chmod 644 {path}")


def start(lab: Workspace, behaviour: str, *, release: str, ready_seconds: int = 60) -> None:
    """Start the job of a trial; ``release``: tells its result from those of other tests."""
    socket = "/run/corral-job-trial.air/vllm.sock"
    argv = ["/usr/bin/python3", SERVER, LOG, f"/run/credentials/{UNIT}/keys.yaml", socket]
    settings = {"gpu_memory_utilization": 0.9, "tensor_parallel": 1, "data_parallel": 1}
    instance = {
        "name": "air", "kind": "vllm", "alias": "air", "release": release, "gpus": [],
        "settings": {**settings, "kv_cache_mib": 1}, "ready_timeout_seconds": ready_seconds,
        "environment": {"HOME": "%C/corral-air"}, "chat_template": None,
        "trial": {"unit": UNIT, "socket": socket, "argv": [*argv, behaviour]},
    }  # fmt: skip
    paths = {"state": "/var/lib/corral", "engines": "/opt/corral/engines"}
    spec = {"paths": paths, "instance": instance, "shards": []}
    job = json.dumps({"kind": "trial", "spec": spec, "by": "a test", "at": "now"})
    lab.on(HOST, f"python3 -I {HELPER} start trial-air <<'END'\n{job}\nEND")


def state(lab: Workspace, unit: str) -> str:
    return lab.on(HOST, f"systemctl show {unit} -P ActiveState")


def result(lab: Workspace) -> dict[str, Any]:
    wait_for(lambda: state(lab, JOB) in ENDED, "the job ends")
    found: dict[str, Any] = json.loads(lab.on(HOST, f"cat {RESULT}"))
    return found


def nothing_is_left(lab: Workspace) -> None:
    wait_for(lambda: state(lab, UNIT) in ENDED, "the server's unit ends")
    assert lab.try_on(HOST, f"pgrep -f {SERVER}").stdout == ""
    assert (
        lab.on(
            HOST,
            "find /var/lib/corral/trials -mindepth 1 ! -name '*.json'; ls /run | grep trial || :",
        )
        == ""
    )


def test_it_answers_a_request_and_is_stopped(lab: Workspace) -> None:
    start(lab, "answers", release="r1")
    found = result(lab)
    assert found["ok"], found
    assert found["answer"]["figures"]["cache_tokens"] == 524288
    assert found["answer"]["skipped"] == ""
    nothing_is_left(lab)
    start(lab, "answers", release="r1")
    assert result(lab)["answer"]["known"] is True


def test_it_sees_no_network_and_no_home(lab: Workspace) -> None:
    start(lab, "loads", release="r2")
    wait_for(lambda: "HOME=" in lab.on(HOST, f"cat {JOB_LOG}"), "it has begun")
    pid = lab.on(HOST, f"systemctl show {UNIT} -P MainPID")
    assert lab.on(HOST, f"nsenter -t {pid} -n ip -o link | wc -l") == "1"
    assert lab.on(HOST, f"stat -c %u /proc/{pid}") != "0"
    variables = lab.on(HOST, f"tr '\\0' '\\n' </proc/{pid}/environ")
    assert "HOME=/tmp" in variables.splitlines()
    lab.on(HOST, f"systemctl stop {JOB}")
    nothing_is_left(lab)


def test_a_killed_job_leaves_no_server(lab: Workspace) -> None:
    start(lab, "loads", release="r3")
    wait_for(lambda: "HOME=" in lab.on(HOST, f"cat {JOB_LOG}"), "it has begun")
    lab.on(HOST, f"systemctl kill --signal=KILL {JOB}")
    wait_for(lambda: state(lab, UNIT) in ENDED, "the server's unit ends")
    assert lab.try_on(HOST, f"pgrep -f {SERVER}").stdout == ""
    # The next one replaces what a killed one left.
    start(lab, "answers", release="r3b")
    assert result(lab)["ok"]
    nothing_is_left(lab)


def test_one_that_never_answers_is_ended_at_its_limit(lab: Workspace) -> None:
    start(lab, "loads", release="r4", ready_seconds=2)
    found = result(lab)
    assert not found["ok"]
    assert found["fault"]["what"].startswith(
        "air: with dummy weights it does not serve: not ready within 2 s"
    )
    assert "ready_timeout_seconds" in found["fault"]["next_step"]
    nothing_is_left(lab)
