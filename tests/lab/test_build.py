"""An engine build that is interrupted at any point is reported and then completed."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from lab import processes
from tests.lab.building import (
    ENGINE,
    JOB,
    JOB_FOLDER,
    RELEASES,
    Seen,
    deploy_cut_off,
    forget,
    manifest,
    seen,
    when_log_says,
    wrong_files,
)
from tests.lab.test_two_operators import both_deploy
from tests.lab.untouched import assert_refused, said
from tests.lab.waiting import job_runs, kill
from tests.lab.workspace import Done, Workspace

HOST, INSTANCE = "lab-2", "tiny-f16"
# Statistics of this host's compilers; all labs of this machine share the cache itself.
STATS_LOG = "/var/cache/corral/stats.log"
COUNTED = (
    f"install --mode 666 /dev/null {STATS_LOG}; echo stats_log = {STATS_LOG} >/etc/ccache.conf"
)
HITS = ("direct_cache_hit", "preprocessed_cache_hit")
# Point at which a build is killed -> text of its log at that point.
POINTS = {
    "configure": "The CXX compiler identification",
    "compile": "Building CXX object",
    "install": "smoke run with a tiny model",
}


@dataclass(frozen=True)
class Story:
    """A lost release, and what the following deploys found, in this order."""

    pid: int
    without_git: Done
    cut_off: dict[str, tuple[Done, Seen]]
    ran_on_alone: bool
    asked_at: tuple[str, str]
    last: Done
    releases: list[str]
    last_pid: int
    hits: int
    misses: int


@pytest.fixture(scope="module")
def story(deployed_once: Workspace) -> Story:
    lab = deployed_once
    pid = lab.pid(HOST, INSTANCE)
    lab.on(HOST, COUNTED)
    forget(lab, HOST)
    without_git = deploy_without_git(lab)
    cut_off = {}
    for point, words in POINTS.items():
        done = deploy_cut_off(lab, HOST, words)
        cut_off[point] = (done, seen(lab, HOST, INSTANCE))
    begun_at = start_and_kill_deploy(lab)
    ran_on_alone = job_runs(lab, HOST, JOB)
    last = lab.deploy("--limit", HOST)
    hits, misses = cache_counts(lab)
    lab.on(HOST, f"rm /etc/ccache.conf {STATS_LOG}")
    return Story(
        pid=pid,
        without_git=without_git,
        cut_off=cut_off,
        ran_on_alone=ran_on_alone,
        asked_at=(begun_at, asked_at(lab)),
        last=last,
        releases=lab.on(HOST, f"ls -A {RELEASES}").split(),
        last_pid=lab.pid(HOST, INSTANCE),
        hits=hits,
        misses=misses,
    )


def deploy_without_git(lab: Workspace) -> Done:
    processes.stop(processes.recorded(lab.layout.run)["git"])
    lab.on(HOST, f"rm -rf /var/lib/corral/build/{ENGINE}")
    try:
        return lab.deploy("--limit", HOST)
    finally:
        up = lab.corral("lab", "up")
        assert up.returncode == 0, said(up)


def start_and_kill_deploy(lab: Workspace) -> str:
    lab.on(HOST, f"rm -rf {JOB_FOLDER}")
    deploy = lab.start_deploy("--limit", HOST)
    when_log_says(lab, HOST, "compiling with", "true")
    kill(deploy)
    return asked_at(lab)


def asked_at(lab: Workspace) -> str:
    """Start time of the last build; joining a build keeps it."""
    return lab.on(HOST, f'grep --only-matching \'"at": "[^"]*"\' {JOB_FOLDER}/job.json')


def cache_counts(lab: Workspace) -> tuple[int, int]:
    """Hits and misses of the compiler cache since its statistics were reset."""
    events = lab.on(HOST, f"cat {STATS_LOG}").splitlines()
    return sum(events.count(hit) for hit in HITS), events.count("cache_miss")


def test_a_git_server_that_is_down_is_named(story: Story, deployed_once: Workspace) -> None:
    words = (f"{JOB} failed.", f"{deployed_once.layout.git_url} cannot be reached for commit")
    assert_refused(story.without_git, *words)


@pytest.mark.parametrize("point", POINTS)
def test_a_build_killed_at_any_point_is_reported_and_leaves_no_release(
    story: Story, point: str
) -> None:
    done, (names, pid) = story.cut_off[point]
    assert_refused(done, "it ended without a result (killed, or a reboot)")
    assert [name for name in names.split() if not name.startswith(".")] == []
    assert pid == story.pid, "the running server is left alone"


def test_a_build_goes_on_without_its_deploy_and_is_joined_by_the_next(story: Story) -> None:
    assert story.ran_on_alone
    assert story.asked_at[0] == story.asked_at[1]
    assert story.last.returncode == 0, said(story.last)


def test_there_is_one_release_and_it_is_whole(story: Story, deployed_once: Workspace) -> None:
    assert len(story.releases) == 1, story.releases
    assert wrong_files(deployed_once, HOST) == []
    assert manifest(deployed_once, HOST)["builder"] == HOST


def test_a_server_whose_program_was_built_again_runs_the_new_one(
    story: Story, deployed_once: Workspace
) -> None:
    assert story.last_pid not in (0, story.pid)
    program = deployed_once.on(HOST, f"readlink /proc/{story.last_pid}/exe")
    assert program == f"{RELEASES}/{story.releases[0]}/bin/llama-server"


def test_a_warm_compiler_cache_leaves_nothing_to_compile(story: Story) -> None:
    assert story.hits > 100
    assert story.misses <= story.hits // 20


def test_two_deploys_that_want_the_same_build_share_it(fleet: Workspace) -> None:
    forget(fleet, HOST)
    both = both_deploy(fleet, "--limit", HOST)
    assert [done.returncode for done in both] == [0, 0], [said(done) for done in both]
    assert wrong_files(fleet, HOST) == []
    assert fleet.on(HOST, f"ls -A {RELEASES} | wc -l") == "1"


@pytest.mark.usefixtures("story")
def test_a_build_leaves_its_sources_and_nothing_else(deployed_once: Workspace) -> None:
    assert deployed_once.on(HOST, f"ls /var/lib/corral/build/{ENGINE}").split() == ["source"]
