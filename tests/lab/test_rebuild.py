"""A host that lost its disk is the same again after one deploy, also when two people start it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.lab.extra_host import remove_host
from tests.lab.test_two_operators import both_deploy
from tests.lab.untouched import said
from tests.lab.workspace import Done, Workspace

HOST, N = "lab-2", 2
INSTANCE = "/var/lib/corral/instances/tiny-f16"
SHARDS = "find /var/lib/corral/models -name '*.gguf' -exec sha256sum {} + | sort"
# The lab's other hosts were made with the packages that a deploy installs; this one was not.
LOOK = "ls -d /opt/corral /etc/corral 2>/dev/null || command -v g++ cmake ccache aria2c zstd"
VERIFY = ("verify", HOST, "-i", "inventories/lab.py")


@dataclass(frozen=True)
class Identity:
    """What identifies the host, read from it."""

    releases: str
    shards: str
    generation: str
    unit: str
    keys: str


@dataclass(frozen=True)
class Rebuild:
    """The host before it lost its disk, bare, and after two concurrent deploys."""

    before: Identity
    found_bare: str
    verified_bare: Done
    both: list[Done]
    after: Identity
    verified: Done


def identity(lab: Workspace) -> Identity:
    return Identity(
        releases=lab.on(HOST, "cd /opt/corral/engines && echo */*"),
        shards=lab.on(HOST, SHARDS),
        generation=lab.on(HOST, f"readlink {INSTANCE}/current"),
        unit=lab.on(HOST, "cat /etc/systemd/system/corral-tiny-f16.service"),
        keys=lab.on(HOST, "cat /etc/corral/keys/tiny-f16"),
    )


@pytest.fixture(scope="module")
def rebuild(deployed_once: Workspace) -> Rebuild:
    lab = deployed_once
    before = identity(lab)
    remove_host(lab, N)
    up = lab.corral("lab", "up")
    assert up.returncode == 0, said(up)
    found_bare = lab.on(HOST, f"{LOOK} || echo bare")
    verified_bare = lab.corral(*VERIFY)
    both = both_deploy(lab, "--limit", HOST)
    assert 0 in [done.returncode for done in both], "\n\n".join(map(said, both))
    return Rebuild(
        before=before,
        found_bare=found_bare,
        verified_bare=verified_bare,
        both=both,
        after=identity(lab),
        verified=lab.corral(*VERIFY),
    )


def test_a_host_that_lost_its_disk_is_deployed_to_what_it_was(rebuild: Rebuild) -> None:
    assert rebuild.found_bare == "bare"
    assert rebuild.after == rebuild.before


def test_verify_fails_on_the_bare_host_and_passes_on_the_rebuilt(rebuild: Rebuild) -> None:
    assert rebuild.verified_bare.returncode == 1
    assert rebuild.verified.returncode == 0, said(rebuild.verified)


def test_two_who_rebuild_a_host_at_once_both_end_well(rebuild: Rebuild) -> None:
    assert not any(done.returncode for done in rebuild.both), "\n\n".join(map(said, rebuild.both))


def test_two_who_rebuild_a_host_at_once_start_its_server_once(
    rebuild: Rebuild, fleet: Workspace
) -> None:
    assert rebuild.verified.returncode == 0
    journal = "journalctl --unit=corral-tiny-f16.service --output=cat --no-pager"
    assert fleet.on(HOST, f"{journal} | grep -c '^Started '") == "1"
