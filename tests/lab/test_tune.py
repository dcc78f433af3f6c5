"""`corral tune` on a real host: real servers beside and in place of the one that serves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.bench.tune.record import Record
from lab import hosts, ssh
from lab.edits import written
from tests.lab.conftest import converge
from tests.lab.untouched import said
from tests.lab.waiting import job_log, wait_for, wait_for_end
from tests.lab.workspace import Done, Workspace

HOST, NAME = "lab-1", "tiny-chat"
INSTANCE, JOB = f"{HOST}/{NAME}", f"tune-{NAME}"
FILE = "inventories/lab.py"
INVENTORY = ("-i", FILE)
# The tiny model answers at once: what is left of a run is the server's start.
REQUESTS = ("--prompt-tokens", "64,512", "--answer-tokens", "16", "--concurrency", "2")
SUBJECTS = ("--only", "threads", "--only", "micro-batch")
PROFILE = "catalog/profiles/tiny-chat.toml"
# One micro-batch answers twice as fast as all others, so that the verdict depends on no time.
CHILD = "files/corral_host/bench/tune_child.py"
FIGURES = '    return {"lengths": found, "load": load(document, lengths[0], answer)}'
STEADY = """    loaded, first = load(document, lengths[0], answer), {"first_token_seconds": 1.0}
    size = document["argv"][document["argv"].index("--ubatch-size") + 1]
    speed = {"answer_tokens_per_second": 40.0 if size == "1024" else 20.0}
    found = [{**one, **first, **speed} for one in found]
    return {"lengths": found, "load": {**loaded, **first}}"""


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


@pytest.fixture
def steady(deployed_once: Workspace) -> Iterator[Workspace]:
    """A lab whose host answers with made figures, and whose inventory may be written."""
    file = deployed_once.path / FILE
    with deployed_once.edited(CHILD, FIGURES, STEADY), written(file, file.read_text()):
        converge(deployed_once, "--limit", HOST)
        yield deployed_once
    converge(deployed_once)


def test_it_ends_beside_the_server_and_what_it_finds_is_rolled_out_unless_the_gate_refuses_it(
    steady: Workspace, results: Path
) -> None:
    found_beside_once(steady, results)
    applied = steady.corral(*quick(results, "--apply"))
    assert applied.returncode == 0, said(applied)
    assert f"{FILE} is written; `pyinfra {FILE} deploy.py --limit {HOST}`" in said(applied)
    assert micro_batch(steady) == 256
    with steady.edited(PROFILE, "exact = 'QQ", "exact = 'QY"):
        refused = steady.deploy("--limit", HOST)
    assert refused.returncode != 0
    assert "golden 0 of 1, limit 1 of 1 replies" in said(refused)
    assert "Reverted: generation" in said(refused)
    assert micro_batch(steady) == 256
    done = steady.deploy("--limit", HOST)
    assert done.returncode == 0, said(done)
    assert micro_batch(steady) == 1024
    verified = steady.corral("verify", INSTANCE, *INVENTORY)
    assert verified.returncode == 0, said(verified)


def found_beside_once(lab: Workspace, results: Path) -> None:
    """Tune beside the server: it is not touched, and nothing is measured twice."""
    pid = lab.pid(HOST, NAME)
    listed = lab.corral(*quick(results, "--list"))
    assert listed.returncode == 0, said(listed)
    assert "micro-batch" in listed.stdout
    (subject,) = json.loads(lab.corral(*quick(results, "--list", "--json")).stdout)
    assert subject["subject"] == "micro-batch"
    done = lab.corral(*quick(results, "--json"))
    assert done.returncode == 0, said(done)
    found = json.loads(done.stdout)
    assert (found["verdict"], found["choices"]) == ("better", {"micro-batch": "1024"})
    assert lab.pid(HOST, NAME) == pid
    record = kept(results)
    runs = [run for block in record.blocks for run in block.runs]
    assert all(run.figures for run in runs)
    assert {name for run in runs for name in run.choices} == {"micro-batch"}
    assert all(run.after.load > 0 for run in runs)
    # The search is over, so that the same question is answered by what is kept.
    again = lab.corral(*quick(results, "--json"))
    assert json.loads(again.stdout) == found
    assert kept(results) == record
    unit = lab.try_on(HOST, f"systemctl is-active corral-bench-{NAME}")
    assert unit.returncode != 0


def quick(results: Path, *more: str) -> tuple[str, ...]:
    """Little is measured."""
    requests = ("--prompt-tokens", "64", "--answer-tokens", "2", "--concurrency", "1")
    where = ("--results", str(results), *INVENTORY)
    return ("tune", INSTANCE, "--only", "micro-batch", *requests, *more, *where)


def micro_batch(lab: Workspace) -> int:
    """Of the server that runs."""
    words = lab.on(HOST, f"tr '\\0' '\\n' < /proc/{lab.pid(HOST, NAME)}/cmdline").split("\n")
    return int(words[words.index("--ubatch-size") + 1])


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
    wait_for_end(fleet, HOST, JOB, "it ends by itself")
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
    assert f"kept from before: {len(first.runs)} runs" in said(third)
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
