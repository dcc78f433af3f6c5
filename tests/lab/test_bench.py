"""`corral bench` on a real host: real programs, a real server that is stopped and restarted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from corral.bench.result import Result
from corral.bench.store import ResultStore
from tests.lab.untouched import said
from tests.lab.waiting import job_log, wait_for, wait_for_end
from tests.lab.workspace import Done, Workspace

HOST, NAME = "lab-1", "tiny-chat"
INSTANCE = f"{HOST}/{NAME}"
JOB = f"bench-{NAME}"
FOLDER = f"/var/lib/corral/instances/{NAME}"
INVENTORY = ("-i", "inventories/lab.py")
QUICK = ("--repetitions", "2")
# Long enough to be interrupted in the middle.
SLOW = ("--repetitions", "20")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


def bench(lab: Workspace, results: Path, *arguments: str) -> Done:
    return lab.corral("bench", *arguments, "--results", str(results), *INVENTORY)


def kept(results: Path) -> list[Result]:
    return [one for one in ResultStore(results).results() if isinstance(one, Result)]


def served(lab: Workspace) -> str:
    """The generation that serves, proved by the health gate's own checks."""
    verified = lab.corral("verify", INSTANCE, *INVENTORY)
    assert verified.returncode == 0, said(verified)
    return lab.on(HOST, f"readlink {FOLDER}/current")


def test_beside_its_server_an_instance_is_measured(fleet: Workspace, results: Path) -> None:
    pid = fleet.pid(HOST, NAME)
    done = bench(fleet, results, INSTANCE, *QUICK)
    assert done.returncode == 0, said(done)
    assert fleet.pid(HOST, NAME) == pid
    (found,) = kept(results)
    assert (found.where, found.name, found.profile) == ("beside", INSTANCE, "tiny-chat")
    cases = {(m.test, m.depth_tokens, m.sequences) for m in found.measures}
    alone = {(test, n, 1) for test in ("prompt", "generation") for n in (0, 512, 1024, 1536)}
    assert cases == alone | {("prompt", 0, 2), ("generation", 512, 2)}
    assert {len(m.samples) for m in found.measures} == {2}
    assert all(min(m.samples) > 0 for m in found.measures)


def test_with_a_mistake_in_its_profile_what_is_installed_is_measured(
    fleet: Workspace, results: Path
) -> None:
    before = bench(fleet, results, INSTANCE, *QUICK)
    with fleet.edited("catalog/profiles/tiny-chat.toml", "slots =", "slotz ="):
        done = bench(fleet, results, INSTANCE, *QUICK)
        kept_figures = fleet.corral("baseline", INSTANCE, *INVENTORY)
        exported = fleet.corral("export", "lab-1/tiny-long", "--as", "env", *INVENTORY)
    for one in (before, done, kept_figures, exported):
        assert one.returncode == 0, said(one)
    assert 'unknown key "slotz"' in said(done)
    assert "lab-1 is measured as it is installed there, not as planned" in said(done)
    planned, installed = kept(results)
    assert installed.commands == planned.commands
    assert (installed.commit, installed.release) == (planned.commit, planned.release)
    assert len(installed.commit) == 40
    assert "tiny-long is shown as if it was alone on its host" in said(exported)


def test_a_stopped_server_is_back_with_its_generation_and_two_runs_compare(
    fleet: Workspace, results: Path
) -> None:
    before, pid = served(fleet), fleet.pid(HOST, NAME)
    for _ in range(2):
        done = bench(fleet, results, INSTANCE, "--stop", *QUICK)
        assert done.returncode == 0, said(done)
    assert fleet.pid(HOST, NAME) != pid
    assert served(fleet) == before
    assert [found.where for found in kept(results)] == ["stopped", "stopped"]
    older = min((results / HOST / NAME).glob("2*.json"))
    arguments = ("compare", INSTANCE, str(older), "--results", str(results), "--json")
    rows = json.loads(fleet.corral("bench", *arguments).stdout)["rows"]
    assert len(rows) == 10
    assert {row["verdict"] for row in rows} <= {"a", "b", "none"}


def begin(lab: Workspace, results: Path, *arguments: str, log: Path) -> None:
    """Start a long benchmark on the host and kill its controller."""
    # Results of the previous job could be mistaken for this one's.
    lab.on(HOST, f"rm -f /var/lib/corral/jobs/{JOB}/log")
    process = lab.start_corral(
        *("bench", INSTANCE, *SLOW, *arguments, "--results", str(results), *INVENTORY), log=log
    )
    wait_for(lambda: "prompt run 2/20" in job_log(lab, HOST, JOB), "it measures")
    process.kill()
    process.wait()


def test_a_killed_benchmark_leaves_the_server_running_again(
    fleet: Workspace, results: Path, tmp_path: Path
) -> None:
    before = served(fleet)
    begin(fleet, results, "--stop", log=tmp_path / "log")
    assert fleet.pid(HOST, NAME) == 0
    fleet.on(HOST, f"systemctl kill --kill-whom=main --signal=KILL corral-job-{JOB}.service")
    wait_for_end(fleet, HOST, JOB, "the job is settled")
    wait_for(lambda: fleet.corral("verify", INSTANCE, *INVENTORY).returncode == 0, "it answers")
    assert served(fleet) == before
    assert fleet.on(HOST, f"ls {FOLDER}/benching.json || echo settled") == "settled"
    assert fleet.try_on(HOST, f"systemctl is-active corral-bench-{NAME}").returncode != 0
    assert kept(results) == []


def test_a_result_is_fetched_after_the_controller_was_killed(
    fleet: Workspace, results: Path, tmp_path: Path
) -> None:
    begin(fleet, results, "--stop", log=tmp_path / "log")
    wait_for_end(fleet, HOST, JOB, "it ends by itself")
    assert served(fleet)
    fetched = bench(fleet, results, INSTANCE, "--stop", *SLOW)
    assert fetched.returncode == 0, said(fetched)
    assert "fetching the result of the one that ended meanwhile" in said(fetched)
    assert [len(m.samples) for m in kept(results)[0].measures] == [20] * 10


def test_a_second_one_on_the_host_is_refused_and_the_same_one_joined(
    fleet: Workspace, results: Path, tmp_path: Path
) -> None:
    begin(fleet, results, log=tmp_path / "log")
    other = bench(fleet, results, f"{HOST}/tiny-long", *QUICK)
    assert other.returncode == 1
    assert f"a benchmark of {NAME} runs on this host" in said(other)
    same = bench(fleet, results, INSTANCE, *SLOW)
    assert same.returncode == 0, said(same)
    assert "joining the one that" in said(same)


def test_what_cannot_be_measured_is_told(fleet: Workspace, results: Path) -> None:
    stopped = fleet.corral("stop", INSTANCE, *INVENTORY)
    assert stopped.returncode == 0, said(stopped)
    done = bench(fleet, results, INSTANCE, "--stop")
    assert done.returncode == 1
    assert "does not run (inactive, dead)" in said(done)
    assert f"corral start {INSTANCE}" in said(done)
    assert fleet.pid(HOST, NAME) == 0


def test_a_failure_inside_the_program_is_told_in_its_words_and_the_server_is_back(
    fleet: Workspace, results: Path
) -> None:
    before = served(fleet)
    # Enough address space to start, too little to load a model.
    drop_in = f"/run/systemd/system/corral-bench-{NAME}.service.d"
    fleet.on(HOST, f"mkdir -p {drop_in}; printf '[Service]\\nLimitAS=36M\\n' > {drop_in}/x.conf")
    fleet.on(HOST, "systemctl daemon-reload")
    done = bench(fleet, results, INSTANCE, "--stop", *QUICK)
    fleet.on(HOST, f"rm -r {drop_in} && systemctl daemon-reload")
    assert done.returncode == 1
    assert "llama-bench failed with exit code" in said(done)
    assert "GGML_ASSERT(ctx->mem_buffer != NULL) failed" in said(done)
    assert served(fleet) == before
