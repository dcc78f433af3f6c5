"""Archives of releases between hosts: one has it, nobody asks the hub, the rest is reported."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.corral_host.swarm.test_swarm import SIZE_BYTES, SLOWLY
from tests.unit.swarm_members import MIB, Group, Member, group, origin, receipts, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Group]:
    with origin(tmp_path / "hub", SIZE_BYTES) as source:
        found = group(tmp_path, source, 3)
        try:
            yield found
        finally:
            found.end()


def give(fleet: Group, member: Member) -> None:
    """Send the archive to a host, as the controller does."""
    member.archive.parent.mkdir()
    member.archive.write_bytes(fleet.origin.content)


def arriving_bytes(member: Member) -> int:
    return int(receipts.arrived_bytes(Path(f"{member.archive}.arriving")))


def assert_left_to_the_controller(fleet: Group, member: Member) -> None:
    assert "the controller sends it" in member.ended()
    assert member.answer() == {"arrived": []}
    assert not member.archive.exists()
    assert fleet.origin.sent_bytes == 0


def test_an_archive_on_one_host_comes_to_the_others_and_the_hub_is_not_asked(
    fleet: Group,
) -> None:
    first, *others = fleet.members
    give(fleet, first)
    for member in others:
        member.archive.parent.mkdir()
        member.archive.write_bytes(b"of an earlier run")
        fleet.start_share(member, held=False)
    fleet.start_share(first, held=True)
    for member in others:
        member.ended()
        assert member.archive.read_bytes() == fleet.origin.content
        assert member.answer() == {"arrived": [fleet.shard["sha256"]]}
        assert [path.name for path in member.archive.parent.iterdir()] == ["a.tar.zst"]
    assert "has all, serves" in first.ended()
    assert fleet.origin.sent_bytes == 0


def test_what_a_killed_first_host_had_is_left_to_the_controller(fleet: Group) -> None:
    first, *others = fleet.members
    give(fleet, first)
    fleet.start_share(first, held=True, upload_bytes_per_second=SLOWLY)
    for member in others:
        fleet.start_share(member, held=False, upload_bytes_per_second=SLOWLY)
    wait_for(lambda: all(arriving_bytes(one) > MIB for one in others), "bytes of the first host")
    first.kill()
    for member in others:
        assert_left_to_the_controller(fleet, member)


def test_a_rotten_archive_is_removed_and_left_to_the_controller(fleet: Group) -> None:
    first, *others = fleet.members
    give(fleet, first)
    with first.archive.open("r+b") as file:
        file.write(b"rot")
    fleet.start_share(first, held=True)
    for member in others:
        fleet.start_share(member, held=False)
    for member in others:
        assert_left_to_the_controller(fleet, member)
    assert "has other bytes" in first.ended()
    assert not first.archive.exists()


def test_an_archive_that_is_installed_meanwhile_is_served_no_more(fleet: Group) -> None:
    first, second, _ = fleet.members
    give(fleet, first)
    names = [first.name, second.name]
    fleet.start_share(first, held=True, expected=names, upload_bytes_per_second=SLOWLY)
    fleet.start_share(second, held=False, expected=names)
    wait_for(lambda: arriving_bytes(second) > MIB, "bytes of the first host")
    first.archive.unlink()
    assert "served no more" in first.ended()
    assert_left_to_the_controller(fleet, second)
