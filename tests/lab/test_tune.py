"""`corral tune` on a real host: real servers beside and in place of the one that serves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from corral.bench.tune.record import Record
from lab import hosts, ssh
from tests.lab.untouched import said
from tests.lab.waiting import job_log, wait_for, wait_for_end
from tests.lab.workspace import Done, Workspace

HOST, NAME = "lab-1", "tiny-chat"
INSTANCE, JOB = f"{HOST}/{NAME}", f"tune-{NAME}"
INVENTORY = ("-i", "inventories/lab.py")
# The tiny model answers at once: what is left of a run is the server's start.
REQUESTS = ("--prompt-tokens", "64,512", "--answer-tokens", "16", "--concurrency", "2")
SUBJECTS = ("--only", "threads", "--only", "micro-batch")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


def words(results: Path, *more: str) -> tuple[str, ...]:
    return ("tune", INSTANCE, *SUBJECTS, *REQUESTS, *more, "--results", str(results), *INVENTORY)


def tune(lab: Workspace, results: Path, *more: str) -> Done:
    return lab.corral(*words(results, *more))


def kept(results: Path) -> Record:
    (path,) = (results / HOST / NAME).glob("*.json")
    return Record.model_validate_json(path.read_text())


def test_it_ends_beside_the_server_and_measures_nothing_twice(
    fleet: Workspace, results: Path
) -> None:
    pid = fleet.pid(HOST, NAME)
    listed = tune(fleet, results, "--list")
    assert listed.returncode == 0, said(listed)
    assert "micro-batch" in listed.stdout
    done = tune(fleet, results, "--json")
    assert done.returncode == 0, said(done)
    found = json.loads(done.stdout)
    assert found["verdict"] in ("better", "none")
    assert fleet.pid(HOST, NAME) == pid
    record = kept(results)
    runs = [run for block in record.blocks for run in block.runs]
    assert all(run.figures for run in runs)
    assert {name for run in runs for name in run.choices} == {"threads", "micro-batch"}
    assert all(run.after.load > 0 for run in runs)
    # The search is over, so that the same question is answered by what is kept.
    again = tune(fleet, results, "--json")
    assert json.loads(again.stdout) == found
    assert kept(results) == record
    unit = fleet.try_on(HOST, f"systemctl is-active corral-bench-{NAME}")
    assert unit.returncode != 0


def test_in_a_window_it_is_killed_and_goes_on_where_it_was(
    fleet: Workspace, results: Path, tmp_path: Path
) -> None:
    generation = fleet.on(HOST, f"readlink /var/lib/corral/instances/{NAME}/current")
    fleet.on(HOST, f"rm -f /var/lib/corral/jobs/{JOB}/log")
    process = fleet.start_corral(*words(results, "--window"), log=tmp_path / "log")
    wait_for(lambda: "run 2 of" in job_log(fleet, HOST, JOB), "it measures")
    assert fleet.pid(HOST, NAME) == 0
    process.kill()
    process.wait()
    # The host goes on alone, with the server back at its end.
    wait_for_end(fleet, HOST, JOB, "it ends by itself", limit_seconds=300)
    assert fleet.pid(HOST, NAME) != 0
    # Its lines would be mistaken for those of the next one.
    fleet.on(HOST, f"rm -f /var/lib/corral/jobs/{JOB}/log")
    second = fleet.start_corral(*words(results, "--window"), log=tmp_path / "second")
    wait_for(lambda: any(results.rglob("[0-9a-f]*.json")), "it fetches what was measured")
    first = kept(results).blocks[0]
    assert (
        "fetching the result of the one that ended meanwhile" in (tmp_path / "second").read_text()
    )
    wait_for(lambda: "run 1 of" in job_log(fleet, HOST, JOB), "it measures on")
    # The job dies in the middle: its server is started again, and its block does not count.
    fleet.on(HOST, f"systemctl kill --kill-whom=main --signal=KILL corral-job-{JOB}.service")
    assert second.wait(120) == 1
    assert "the benchmark was interrupted" in (tmp_path / "second").read_text()
    wait_for(lambda: fleet.corral("verify", INSTANCE, *INVENTORY).returncode == 0, "it answers")
    assert kept(results).blocks == (first,)
    third = tune(fleet, results, "--window")
    assert third.returncode == 0, said(third)
    assert f"{len(first.runs)} runs are kept from before" in said(third)
    assert kept(results).blocks[0] == first
    assert len(kept(results).blocks) > 1
    assert fleet.on(HOST, f"readlink /var/lib/corral/instances/{NAME}/current") == generation
    assert fleet.on(HOST, f"ls /var/lib/corral/instances/{NAME}/benching.json || echo no") == "no"


def test_a_host_that_loses_power_serves_again_and_its_block_does_not_count(
    fleet: Workspace, results: Path, tmp_path: Path
) -> None:
    fleet.on(HOST, f"rm -f /var/lib/corral/jobs/{JOB}/log")
    process = fleet.start_corral(*words(results, "--window"), log=tmp_path / "log")
    wait_for(lambda: "run 2 of" in job_log(fleet, HOST, JOB), "it measures")
    assert fleet.pid(HOST, NAME) == 0
    hosts.power_cut(fleet.layout, 1)
    hosts.boot(fleet.layout, 1)
    ssh.wait_until_booted(fleet.layout, 1)
    assert process.wait(120) == 1
    assert "run the same command again" in (tmp_path / "log").read_text()
    wait_for(lambda: fleet.corral("verify", INSTANCE, *INVENTORY).returncode == 0, "it answers")
    assert not [*results.rglob("[0-9a-f]*.json")]
