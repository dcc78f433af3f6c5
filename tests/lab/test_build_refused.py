"""What cannot be built is refused with one message; the existing release and server stay."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.building import (
    ENGINE,
    ENTRY,
    JOB_FOLDER,
    SERVER_SOURCE,
    Seen,
    another_commit,
    patched,
    seen,
    when_log_says,
)
from tests.lab.untouched import assert_refused
from tests.lab.workspace import Done, Workspace

HOST, INSTANCE = "lab-2", "tiny-f16"
BUILDS = "/var/lib/corral/build"
NO_COMMIT = "c0ffee" + "0" * 34


@pytest.fixture
def lab(fleet: Workspace) -> Iterator[Workspace]:
    """A fleet whose host must have the same release and the same server afterwards."""
    before: Seen = seen(fleet, HOST, INSTANCE)
    yield fleet
    assert seen(fleet, HOST, INSTANCE) == before
    objects = f"find {BUILDS}/{ENGINE} -mindepth 1 -maxdepth 1 -not -name source"
    fleet.on(HOST, f"{objects} -exec rm -r {{}} +")


def test_a_commit_that_does_not_exist_is_named_with_its_server(lab: Workspace) -> None:
    with another_commit(lab, NO_COMMIT):
        failed = lab.deploy("--limit", HOST)
    assert_refused(failed, f"{lab.layout.git_url} has no commit {NO_COMMIT}", "`corral lock`")


def test_a_patch_that_does_not_apply_is_named(lab: Workspace) -> None:
    with patched(lab, "// a comment", above="int no_such_line;"):
        failed = lab.deploy("--limit", HOST)
    assert_refused(failed, ".patch does not apply to 0c1e57098bba", SERVER_SOURCE)


def test_a_compilers_error_is_told_with_its_place(lab: Workspace) -> None:
    with patched(lab, "#error no such luck"):
        failed = lab.deploy("--limit", HOST)
    assert_refused(failed, "could not be built", f"{SERVER_SOURCE}:1:2: error: #error no such luck")


def test_a_program_that_the_sources_lack_is_told(lab: Workspace) -> None:
    with lab.edited(ENTRY, '"llama-bench"', '"no-such-program"'):
        failed = lab.deploy("--limit", HOST)
    why = "ninja: error: unknown target 'no-such-program'"
    assert_refused(failed, f"could not be built: {why}")


def test_a_disk_that_fills_up_while_building_is_told(lab: Workspace) -> None:
    lab.on(HOST, f"mkdir -p {BUILDS} && mount -t tmpfs -o size=2g tmpfs {BUILDS}")
    try:
        with patched(lab, "// another release, for a disk that fills up"):
            failed = deploy_into_a_filling_disk(lab)
    finally:
        lab.on(HOST, f"umount {BUILDS}")
    assert_refused(failed, "could not be built", "No space left on device", "free space")


def deploy_into_a_filling_disk(lab: Workspace) -> Done:
    """A deploy during whose compilation the disk has only one MiB left."""
    lab.on(HOST, f"rm -rf {JOB_FOLDER}")
    deploy = lab.start_deploy("--limit", HOST)
    used = f"$(df --output=used {BUILDS} | tail -1)"
    shrink = f"mount -o remount,size=$(({used} + 1024))k {BUILDS}"
    when_log_says(lab, HOST, "Building CXX object", shrink)
    text = deploy.communicate()[0]
    return Done(deploy.args, deploy.returncode, text, "")
