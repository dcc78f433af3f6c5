"""Hosts take a file from each other; real aria2 processes on this machine, and what goes wrong."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.faults import Rule, faults
from tests.unit.helper_modules import helper_module
from tests.unit.swarm_members import MIB, Group, Member, Origin, group, origin, receipts, wait_for

pytestmark = pytest.mark.slow

SIZE_BYTES = 16 * MIB
# So slow that a fault happens while bytes are on their way: 16 MiB in 8 s.
SLOWLY = 2 * MIB


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Origin]:
    with origin(tmp_path / "hub", SIZE_BYTES) as running:
        yield running


@pytest.fixture
def fleet(source: Origin, tmp_path: Path) -> Iterator[Group]:
    found = group(tmp_path, source, 3)
    try:
        yield found
    finally:
        found.end()


def taking(fleet: Group, member: Member) -> bool:
    """Whether some of the file has arrived on a host by way of others."""
    staged = member.state / "models" / ".staging" / fleet.shard["sha256"]
    return bool(receipts.arrived_bytes(staged) > MIB)


def asked_the_hub(members: list[Member]) -> int:
    """How many hosts did. aria2 drops connections in the middle, so that bytes tell little."""
    return sum("from the hub" in member.printed() for member in members)


def test_the_file_leaves_the_hub_once_and_all_hosts_end_whole(fleet: Group) -> None:
    for member in fleet.members:
        fleet.start(member)
    for member in fleet.members:
        member.ended()
    for member in fleet.members:
        fleet.assert_whole(member)
    assert fleet.origin.sent_bytes == SIZE_BYTES


def test_a_file_that_is_wanted_under_two_names_is_brought_once_and_served(fleet: Group) -> None:
    first, second, _ = fleet.members
    for member in (first, second):
        fleet.start(member, twin=True, expected=["h0", "h1"])
    for member in (first, second):
        member.ended()
        fleet.assert_whole(member)
        twin = fleet.twin_of(member)
        assert Path(twin["path"]).samefile(member.path(fleet.shard["revision"]))
        assert receipts.shard_is_proved(twin)
    assert fleet.origin.sent_bytes == SIZE_BYTES


def test_a_killed_first_host_leaves_the_others_to_end_whole(fleet: Group) -> None:
    first, *others = fleet.members
    fleet.give(first)
    fleet.start(first, upload_bytes_per_second=SLOWLY)
    for member in others:
        fleet.start(member, upload_bytes_per_second=SLOWLY)
    wait_for(lambda: all(taking(fleet, member) for member in others), "bytes of the first host")
    first.kill()
    for member in others:
        member.ended()
        fleet.assert_whole(member)
    assert asked_the_hub(others) >= 1


def test_a_host_that_is_killed_while_it_fetches_is_replaced_and_resumes(fleet: Group) -> None:
    first, *others = fleet.members
    with faults(fleet.origin.root, Rule(match="/cdn/*", kind="slow", bytes_per_second=4 * MIB)):
        for member in fleet.members:
            fleet.start(member)
        wait_for(lambda: taking(fleet, first), "bytes of the hub")
        first.kill()
        for member in others:
            member.ended()
            fleet.assert_whole(member)
    fleet.start(first, expected=[])
    first.ended()
    fleet.assert_whole(first)


def test_a_killed_receiver_does_not_stop_the_others_and_resumes(fleet: Group) -> None:
    first, second, third = fleet.members
    fleet.give(first)
    for member in fleet.members:
        fleet.start(member, upload_bytes_per_second=SLOWLY)
    wait_for(lambda: taking(fleet, second), "bytes of the first host")
    second.kill()
    fleet.start(second)
    for member in (first, third, second):
        member.ended()
        fleet.assert_whole(member)
    assert fleet.origin.sent_bytes == 0


def test_a_late_host_takes_all_from_those_that_serve(fleet: Group) -> None:
    first, second, late = fleet.members
    fleet.give(first)
    fleet.start(first, upload_bytes_per_second=SLOWLY)
    fleet.start(second)
    wait_for(lambda: taking(fleet, second), "bytes of the first host")
    fleet.start(late)
    for member in (first, second, late):
        member.ended()
        fleet.assert_whole(member)
    assert fleet.origin.sent_bytes == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_fails_its_host_alone(fleet: Group) -> None:
    first, second, full = fleet.members
    models = full.state / "models"
    models.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "corral-test", models], check=True)
    try:
        fleet.give(first)
        for member in fleet.members:
            fleet.start(member)
        for member in (first, second):
            member.ended()
            fleet.assert_whole(member)
        assert full.code() == 1
        assert "disk full" in full.printed()
    finally:
        full.kill()
        subprocess.run(["umount", models], check=True)


def flip_a_bit(path: Path) -> None:
    """Rot: other bytes, under the same modification time."""
    about = path.stat()
    with path.open("r+b") as file:
        file.seek(SIZE_BYTES // 2)
        old = file.read(1)[0]
        file.seek(SIZE_BYTES // 2)
        file.write(bytes([old ^ 1]))
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def remember_pieces(fleet: Group, member: Member) -> None:
    """Keep the digests of its pieces, as a host does that served the file before."""
    shard = fleet.shard_of(member)
    pieces = helper_module("swarm.pieces")
    _, digests = pieces.read(shard["path"], shard["size_bytes"])
    pieces.keep(shard, member.state / "swarm", digests)


def test_rot_on_one_host_is_replaced_by_pieces_of_another(fleet: Group) -> None:
    rotten, sound, third = fleet.members
    for member in (rotten, sound):
        path = fleet.give(member)
        remember_pieces(fleet, member)
        if member is rotten:
            flip_a_bit(path)
    for member in fleet.members:
        fleet.start(member)
    third.ended()
    fleet.assert_whole(third)
    assert fleet.origin.sent_bytes == 0, third.printed()


def test_rot_on_the_only_host_that_has_the_file_sends_one_host_to_the_hub(fleet: Group) -> None:
    rotten, *others = fleet.members
    path = fleet.give(rotten)
    remember_pieces(fleet, rotten)
    flip_a_bit(path)
    for member in fleet.members:
        fleet.start(member, upload_seconds=30)
    for member in others:
        member.ended()
        fleet.assert_whole(member)
    assert asked_the_hub(others) >= 1


def test_rot_is_found_before_a_file_is_served_for_the_first_time(fleet: Group) -> None:
    rotten, *others = fleet.members
    path = fleet.give(rotten)
    flip_a_bit(path)
    for member in fleet.members:
        fleet.start(member)
    for member in others:
        member.ended()
        fleet.assert_whole(member)
    assert "other bytes than when it was proved" in rotten.ended()
    assert not receipts.shard_is_proved(fleet.shard_of(rotten))


def test_a_file_that_is_gone_is_served_no_more(fleet: Group) -> None:
    first, *others = fleet.members
    path = fleet.give(first)
    for member in fleet.members:
        fleet.start(member, upload_bytes_per_second=SLOWLY)
    wait_for(lambda: all(taking(fleet, member) for member in others), "bytes of the first host")
    path.unlink()
    wait_for(lambda: "served no more" in first.printed(), "the first host sees it")
    wait_for(lambda: not is_open(path), "its bytes are closed")
    for member in others:
        member.ended()
        fleet.assert_whole(member)
    assert fleet.origin.sent_bytes > 0


def is_open(path: Path) -> bool:
    """Whether a process has a removed file open."""
    links = Path("/proc").glob("[0-9]*/fd/*")
    return any(target(link) == f"{path} (deleted)" for link in links)


def target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""


def test_a_swarm_that_gets_nowhere_leaves_each_host_to_the_hub(fleet: Group) -> None:
    """The first host says that it has the file, and its aria2 sends nothing any more."""
    first, *others = fleet.members
    fleet.give(first)
    for member in fleet.members:
        fleet.start(member, upload_bytes_per_second=SLOWLY, upload_seconds=30)
    wait_for(lambda: all(taking(fleet, member) for member in others), "bytes of the first host")
    os.kill(aria2_of(first), signal.SIGSTOP)
    for member in others:
        member.ended()
        fleet.assert_whole(member)
    assert "the hub serves the rest" in "".join(member.printed() for member in others)


def aria2_of(member: Member) -> int:
    assert member.process is not None
    found = subprocess.run(
        ["pgrep", "-P", str(member.process.pid), "aria2c"], capture_output=True, text=True
    )
    return int(found.stdout.split()[0])
