"""An engine build that fails or is cut off at any point is told of, and done again whole."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from lab import processes
from tests.lab.untouched import assert_refused, said
from tests.lab.waiting import job_log, job_runs, kill, wait_for
from tests.lab.workspace import Done, Workspace

HOST, JOB = "lab-2", "build-llama.cpp"
ENGINE = "catalog/engines/llama.cpp.toml"
RELEASES = "/opt/corral/engines/llama.cpp"
CACHE_STATS = "CCACHE_DIR=/var/cache/corral/ccache ccache --print-stats"
TOLD_LINES = 30


@dataclass(frozen=True)
class Story:
    """A release that lost its manifest, and what the deploys after it met, in this order."""

    without_git: Done
    job_killed: Done
    ran_on_alone: bool
    begun_at: tuple[str, str]
    last: Done
    releases: list[str]
    pids: tuple[int, int]
    hits: int
    misses: int


@pytest.fixture(scope="module")
def story(deployed_once: Workspace) -> Story:
    lab = deployed_once
    pid, cache_before = lab.pid(HOST, "tiny-f16"), cache_counts(lab)
    lab.on(HOST, f"rm {RELEASES}/*/manifest.json")
    without_git = deploy_without_git(lab)
    job_killed = deploy_whose_job_is_killed(lab)
    begun_at = start_and_kill_deploy(lab)
    ran_on_alone = job_runs(lab, HOST, JOB)
    last = lab.deploy("--limit", HOST)
    counts = cache_counts(lab)
    return Story(
        without_git=without_git,
        job_killed=job_killed,
        ran_on_alone=ran_on_alone,
        begun_at=(begun_at, asked_at(lab)),
        last=last,
        releases=lab.on(HOST, f"ls -A {RELEASES}").split(),
        pids=(pid, lab.pid(HOST, "tiny-f16")),
        hits=counts[0] - cache_before[0],
        misses=counts[1] - cache_before[1],
    )


def deploy_without_git(lab: Workspace) -> Done:
    processes.stop(processes.recorded(lab.layout.run)["git"])
    try:
        return lab.deploy("--limit", HOST)
    finally:
        up = lab.corral("lab", "up")
        assert up.returncode == 0, said(up)


def deploy_whose_job_is_killed(lab: Workspace) -> Done:
    deploy = lab.start_deploy("--limit", HOST)
    wait_until_it_compiles(lab)
    lab.on(HOST, f"systemctl kill --signal=KILL corral-job-{JOB}.service")
    text = deploy.communicate()[0]
    return Done(deploy.args, deploy.returncode, text, "")


def start_and_kill_deploy(lab: Workspace) -> str:
    deploy = lab.start_deploy("--limit", HOST)
    wait_until_it_compiles(lab)
    kill(deploy)
    return asked_at(lab)


def wait_until_it_compiles(lab: Workspace) -> None:
    wait_for(
        lambda: job_runs(lab, HOST, JOB) and "Building C" in job_log(lab, HOST, JOB),
        "the build compiles",
        limit_seconds=300,
    )


def asked_at(lab: Workspace) -> str:
    """When the last build was asked for; a build that is joined keeps its time."""
    return str(json.loads(lab.on(HOST, f"cat /var/lib/corral/jobs/{JOB}/job.json"))["at"])


def cache_counts(lab: Workspace) -> tuple[int, int]:
    """Hits and misses of the compiler cache since it was made."""
    lines = lab.on(HOST, CACHE_STATS).splitlines()
    counts = {name: int(value) for name, value in map(str.split, lines)}
    hits = counts["direct_cache_hit"] + counts["preprocessed_cache_hit"]
    return hits, counts["cache_miss"]


def test_a_git_server_that_is_down_is_named(story: Story, deployed_once: Workspace) -> None:
    words = ("build-llama.cpp failed. Its last lines:", deployed_once.layout.git_url)
    assert_refused(story.without_git, *words)


def test_a_build_killed_on_its_host_is_reported(story: Story) -> None:
    assert_refused(story.job_killed, "it ended without a result (killed, or a reboot)")


def test_a_build_goes_on_without_its_deploy_and_is_joined_by_the_next(story: Story) -> None:
    assert story.ran_on_alone
    assert story.begun_at[0] == story.begun_at[1]
    assert story.last.returncode == 0, said(story.last)


def test_there_is_one_release_and_it_is_whole(story: Story, deployed_once: Workspace) -> None:
    (release,) = story.releases
    folder = f"{RELEASES}/{release}"
    manifest = json.loads(deployed_once.on(HOST, f"cat {folder}/manifest.json"))
    for name, entry in manifest["files"].items():
        digest = deployed_once.on(HOST, f"sha256sum {folder}/{name}").split()[0]
        assert digest == entry["sha256"]
    newest = deployed_once.on(
        HOST, f"find {folder} -type f -printf '%C@ %f\\n' | sort -n | tail -1"
    )
    assert newest.endswith("manifest.json")


def test_a_server_whose_program_was_built_again_runs_the_new_one(
    story: Story, deployed_once: Workspace
) -> None:
    assert story.pids[1] not in (0, story.pids[0])
    program = deployed_once.on(HOST, f"readlink /proc/{story.pids[1]}/exe")
    assert program == f"{RELEASES}/{story.releases[0]}/bin/llama-server"


def test_a_warm_compiler_cache_leaves_nothing_to_compile(story: Story) -> None:
    assert story.hits > 100
    assert story.misses <= story.hits // 50


def test_a_failed_build_is_shown_and_leaves_the_old_release(fleet: Workspace) -> None:
    before = fleet.on(HOST, f"ls -A {RELEASES}"), fleet.pid(HOST, "tiny-f16")
    with fleet.edited(ENGINE, '"llama-bench"', '"no-such-program"'):
        failed = fleet.deploy("--limit", HOST)
    words = ("build-llama.cpp failed. Its last lines:", "unknown target", "cmake --build")
    assert_refused(failed, *words)
    text = said(failed)
    last_lines = job_log(fleet, HOST, JOB).splitlines()[-TOLD_LINES:]
    assert len(last_lines) > 10
    assert [line for line in last_lines if " ".join(line.split()) not in text] == []
    assert (fleet.on(HOST, f"ls -A {RELEASES}"), fleet.pid(HOST, "tiny-f16")) == before
    fleet.on(HOST, "find /var/lib/corral/build/llama.cpp -mindepth 1 -maxdepth 1 "
        "-not -name source -exec rm -r {} +")  # fmt: skip
