"""`corral rollout` on real hosts: it converges, reverts, excludes a second one, and resumes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab import drop_ins
from tests.lab.observed import pids
from tests.lab.untouched import assert_refused, said
from tests.lab.waiting import wait_for
from tests.lab.workspace import Done, Workspace

INVENTORY = "inventories/lab.py"
# Another quant for tiny-chat of lab-1, in the first wave, and for tiny-gpu of lab-3, in the second.
PROFILE, OLD, NEW = "catalog/profiles/tiny-chat.toml", 'quant = "Q8_0"', 'quant = "F16"'
CHANGED = (("lab-1", "tiny-chat"), ("lab-3", "tiny-gpu"))
UNIT = "corral-tiny-gpu.service"
REFUSES_F16 = f"ExecStartPre=+/bin/sh -c '! grep -q F16 /etc/systemd/system/{UNIT}'"


def rollout(lab: Workspace, state: Path, *arguments: str) -> Done:
    return lab.corral("rollout", INVENTORY, "-y", "--state", str(state), *arguments)


def generations(lab: Workspace) -> dict[str, str]:
    folder = "/var/lib/corral/instances"
    return {h: lab.on(h, f"basename $(readlink {folder}/{i}/current)") for h, i in CHANGED}


def planned(lab: Workspace) -> dict[str, str]:
    found = {}
    for host, name in CHANGED:
        plan = json.loads(lab.corral("plan", host, "--json", "-i", INVENTORY).stdout)
        found[host] = next(i["generation"] for i in plan["instances"] if i["name"] == name)
    return found


def journal(state: Path) -> dict[str, Any]:
    newest = sorted(state.glob("*/rollout.json"))[-1]
    assert (newest.parent / "page.html").stat().st_size > 0
    found: dict[str, Any] = json.loads(newest.read_text())
    return found


@contextmanager
def refusing_host(lab: Workspace) -> Iterator[None]:
    """tiny-gpu of lab-3 does not start with the new quant."""
    lab.on("lab-3", f"{drop_ins.lay([UNIT], REFUSES_F16)} && systemctl daemon-reload")
    try:
        yield
    finally:
        lab.on("lab-3", drop_ins.lift([UNIT]))


@contextmanager
def begun(
    lab: Workspace, state: Path, *arguments: str
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A rollout in the background, with its output; killed at the end of the block."""
    log = state.with_suffix(".log")
    command = ("rollout", INVENTORY, "-y", "--state", str(state), *arguments)
    process = lab.start_corral(*command, log=log)
    try:
        yield process, log
    finally:
        process.kill()
        process.wait()


def test_another_quant_goes_through_the_fleet_and_a_second_run_changes_nothing(
    fleet: Workspace, tmp_path: Path
) -> None:
    before = pids(fleet)
    with fleet.edited(PROFILE, OLD, NEW):
        done = rollout(fleet, tmp_path, "--soak", "1")
        assert done.returncode == 0, said(done)
        assert generations(fleet) == planned(fleet)
        assert "quant Q8_0 -> F16" in said(done)
        found = journal(tmp_path)
        assert (found["exit_code"], len(found["reports"])) == (0, 2)
        assert [wave["hosts"] for wave in found["waves"]] == [["lab-1"], ["lab-3"]]
        after = pids(fleet)
        assert {pair for pair in before if before[pair] != after[pair]} == set(CHANGED)
        assert fleet.corral("verify", "-i", INVENTORY).returncode == 0
        again = rollout(fleet, tmp_path)
        assert again.returncode == 0, said(again)
        assert "nothing to do: 6 instances verified against the plan" in said(again)
        assert pids(fleet) == after
        back = fleet.corral("revert", "--rollout", found["id"], "--state", str(tmp_path))
        assert back.returncode == 0, said(back)
    assert generations(fleet) == planned(fleet)


def test_a_quant_that_fails_on_one_host_is_taken_back_everywhere(
    fleet: Workspace, tmp_path: Path
) -> None:
    before = generations(fleet)
    with refusing_host(fleet), fleet.edited(PROFILE, OLD, NEW):
        wanted = planned(fleet)
        done = rollout(fleet, tmp_path, "--soak", "0")
    assert done.returncode == 10, said(done)
    assert generations(fleet) == before
    assert fleet.corral("verify", "-i", INVENTORY).returncode == 0
    found = journal(tmp_path)
    assert [report["outcome"] for report in found["reports"]] == ["kept", "reverted"]
    assert [report["instance"] for report in found["reverts"]] == ["tiny-chat"]
    shown = fleet.corral("show", "lab-3/tiny-gpu", "-i", INVENTORY, "--log")
    assert wanted["lab-3"] in shown.stdout
    assert "reverted" in shown.stdout


def test_a_second_rollout_is_refused_and_a_killed_one_is_resumed(
    fleet: Workspace, tmp_path: Path
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    with fleet.edited(PROFILE, OLD, NEW):
        with begun(fleet, here, "--soak", "40") as (first, log):
            wait_for(lambda: "soaks for" in log.read_text(), "the first wave is done")
            assert_refused(
                rollout(fleet, here), "a rollout has been running since", f"process {first.pid}"
            )
            other = rollout(fleet, elsewhere)
            assert_refused(other, "rolling out", journal(here)["id"])
            wait_for(lambda: "lab-3/tiny-gpu: " in log.read_text(), "the second wave is at work")
        assert journal(here)["exit_code"] is None
        resumed = rollout(fleet, here, "--resume", "--soak", "0")
        assert resumed.returncode == 0, said(resumed)
        assert generations(fleet) == planned(fleet)
        assert journal(here)["exit_code"] == 0
