"""One host builds, the others receive the release: complete and proved, or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from lab import hosts
from tests.lab.building import (
    JOB_FOLDER,
    RELEASES,
    Seen,
    archive,
    forget,
    manifest,
    seen,
    when_log_says,
    wrong_files,
)
from tests.lab.test_two_operators import both_deploy
from tests.lab.untouched import assert_refused, said
from tests.lab.workspace import Done, Workspace

BUILDER, RECEIVERS = "lab-1", ("lab-2", "lab-3")
RECEIVER, INSTANCE = "lab-3", "tiny-gpu"
BOTH = ("--limit", BUILDER, "--limit", RECEIVER)


@pytest.fixture(scope="module")
def shipped(deployed_once: Workspace) -> Done:
    """A deploy of three hosts that all lost the release."""
    forget(deployed_once, BUILDER, *RECEIVERS)
    return deployed_once.deploy()


def job(lab: Workspace, host: str) -> str:
    """The host's last job about the release."""
    kind: str = json.loads(lab.on(host, f"cat {JOB_FOLDER}/job.json"))["kind"]
    return kind


def test_three_hosts_with_one_key_need_one_build(shipped: Done, deployed_once: Workspace) -> None:
    lab = deployed_once
    assert shipped.returncode == 0, said(shipped)
    assert [job(lab, host) for host in (BUILDER, *RECEIVERS)] == ["build", "install", "install"]
    manifests = [manifest(lab, host) for host in (BUILDER, *RECEIVERS)]
    assert manifests[0]["builder"] == BUILDER
    assert manifests[1] == manifests[2] == manifests[0]


@pytest.mark.parametrize("host", RECEIVERS)
def test_what_arrived_is_whole_and_was_proved_there(
    shipped: Done, deployed_once: Workspace, host: str
) -> None:
    assert shipped.returncode == 0
    assert wrong_files(deployed_once, host) == []
    receipt: dict[str, Any] = json.loads(deployed_once.on(host, f"cat {RELEASES}/*/installed.json"))
    assert receipt["smoke"].endswith("tokens on CPU")


def test_no_archive_stays_on_a_host(shipped: Done, deployed_once: Workspace) -> None:
    assert shipped.returncode == 0
    for host in (BUILDER, *RECEIVERS):
        assert deployed_once.on(host, "find /var/lib/corral/archives -name '*.zst*'") == ""


def test_programs_need_nothing_but_the_c_library_and_their_own_folder(
    shipped: Done, deployed_once: Workspace
) -> None:
    assert shipped.returncode == 0
    listed = deployed_once.on(RECEIVER, f"ldd {RELEASES}/*/bin/* | grep '=>'").splitlines()
    found = {line.split("=>")[1].split()[0] for line in listed}
    assert "not" not in found
    outside = {path.rsplit("/", 1)[-1] for path in found if not path.startswith(RELEASES)}
    assert outside <= {"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1"}


def test_a_flipped_bit_in_the_store_installs_nothing_and_is_mended(
    shipped: Done, fleet: Workspace
) -> None:
    assert shipped.returncode == 0
    forget(fleet, RECEIVER, archives=False)
    before = seen(fleet, RECEIVER, INSTANCE)
    flip(fleet)
    refused = fleet.deploy("--limit", RECEIVER)
    assert_refused(refused, "was damaged and is removed")
    assert seen(fleet, RECEIVER, INSTANCE) == before == ("", before[1])
    fixed = fleet.deploy(*BOTH)
    assert fixed.returncode == 0, said(fixed)
    assert (job(fleet, BUILDER), job(fleet, RECEIVER)) == ("pack", "install")


def flip(lab: Workspace) -> None:
    """Flip one bit in the middle of the archive."""
    with archive(lab).open("r+b") as file:
        file.seek(archive(lab).stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))


def test_two_deploys_that_ship_the_same_archive_both_end_well(
    shipped: Done, fleet: Workspace
) -> None:
    assert shipped.returncode == 0
    forget(fleet, RECEIVER, archives=False)
    both = both_deploy(fleet, "--limit", RECEIVER)
    assert [done.returncode for done in both] == [0, 0], [said(done) for done in both]
    assert wrong_files(fleet, RECEIVER) == []
    assert len(fleet.on(RECEIVER, f"ls -A {RELEASES}").split()) == 1


@contextmanager
def small_disk(lab: Workspace) -> Iterator[None]:
    """Limit the receiver's disk for releases to 8 MiB until the block ends."""
    lab.on(RECEIVER, f"mount -t tmpfs -o size=8m tmpfs {RELEASES}")
    try:
        yield
    finally:
        lab.on(RECEIVER, f"umount {RELEASES}")


def test_a_disk_too_small_for_what_is_in_the_archive_installs_nothing(
    shipped: Done, fleet: Workspace
) -> None:
    assert shipped.returncode == 0
    forget(fleet, RECEIVER, archives=False)
    pid = fleet.pid(RECEIVER, INSTANCE)
    with small_disk(fleet):
        refused = fleet.deploy("--limit", RECEIVER)
        after: Seen = seen(fleet, RECEIVER, INSTANCE)
    assert_refused(refused, f"{RELEASES}: disk full; nothing was installed", "free space")
    assert after == ("", pid)


@dataclass(frozen=True)
class Death:
    """Cut the builder's power once it has built, and boot it again."""

    first: Done
    receiver: tuple[Seen, Seen]
    second: Done
    built_at: tuple[str, str]


@pytest.fixture(scope="module")
def death(shipped: Done, deployed_once: Workspace) -> Death:
    assert shipped.returncode == 0
    lab = deployed_once
    forget(lab, BUILDER, RECEIVER)
    before = seen(lab, RECEIVER, INSTANCE)
    deploy = lab.start_deploy(*BOTH)
    when_log_says(lab, BUILDER, "packing", "true")
    hosts.power_cut(lab.layout, 1)
    text = deploy.communicate()[0]
    after = seen(lab, RECEIVER, INSTANCE)
    up = lab.corral("lab", "up")
    assert up.returncode == 0, said(up)
    built_at = manifest(lab, BUILDER)["built_at"]
    second = lab.deploy(*BOTH)
    first = Done(deploy.args, deploy.returncode, text, "")
    return Death(first, (before, after), second, (built_at, manifest(lab, RECEIVER)["built_at"]))


def test_a_builder_that_dies_before_shipping_leaves_the_receiver_as_it_was(death: Death) -> None:
    assert_refused(death.first, "the host that builds it did not deliver it")
    assert death.receiver[0] == death.receiver[1]


def test_a_builder_that_is_back_ships_what_it_had_built(death: Death) -> None:
    assert death.second.returncode == 0, said(death.second)
    assert death.built_at[0] == death.built_at[1]
