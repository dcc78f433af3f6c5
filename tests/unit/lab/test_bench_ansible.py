"""The checks by Ansible that a deploy is compared with, and the times of both."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from lab.ansible_checks import playbook
from lab.bench_ansible import Times, _refuse_changes
from tests.samples import CHAT, plan

RECAP = "lab-1 : ok=16   changed={changed}    unreachable=0    failed={failed}    skipped=0\n"


def test_every_part_of_a_plan_is_checked() -> None:
    planned = json.loads(plan(CHAT).model_dump_json())
    (play,) = playbook([planned], keys=Path("/keys"), sha256={"lab-1": {"/h.pyz": "ab"}})
    of_host = play["vars"]["of_hosts"]["lab-1"]
    instance = planned["instances"][0]
    assert of_host["packages"] == planned["packages"]
    assert of_host["digests"] == [{"path": "/h.pyz", "sha256": "ab"}]
    assert [one["path"] for one in of_host["shards"]] == [s["path"] for s in planned["shards"]]
    assert of_host["units"][0]["text"] == instance["unit_text"]
    closed = [f"{one['method']} {one['route']}" for one in of_host["closed"]]
    assert closed == instance["keyed_routes"]
    # Each list is the loop of a task, or of one in it.
    text = json.dumps(play["tasks"])
    loops = of_host.keys() - {"keys"}
    assert [name for name in sorted(loops) if f"mine.{name} " not in text] == []


def ended(text: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess([], code, text, "")


def test_a_run_that_changes_fails_or_leaves_out_a_host_is_not_measured() -> None:
    _refuse_changes(ended(RECAP.format(changed=0, failed=0)), ["lab-1"])
    for done in (
        ended(RECAP.format(changed=1, failed=0)),
        ended(RECAP.format(changed=0, failed=1)),
        ended(RECAP.format(changed=0, failed=0), 2),
        ended(""),
    ):
        with pytest.raises(SystemExit):
            _refuse_changes(done, ["lab-1"])


def test_the_ratio_is_that_of_the_medians() -> None:
    assert Times((1.0, 2.0, 9.0), (10.0, 20.0, 30.0)).ratio == 10
