"""A host that cannot be reached, or whose host key changed, is named and left out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab import hosts, ssh
from tests.lab.untouched import look, said
from tests.lab.workspace import Workspace

INVENTORY = ("-i", "inventories/lab.py")


@contextmanager
def cut_off(lab: Workspace, n: int) -> Iterator[None]:
    hosts.link(lab.layout, n, up=False)
    try:
        yield
    finally:
        hosts.link(lab.layout, n, up=True)
        ssh.wait_until_booted(lab.layout, n)


@contextmanager
def another_host_key(lab: Workspace, n: int) -> Iterator[None]:
    """The controller knows another key for host n, as if the host had been replaced."""
    known, old = lab.layout.known_hosts, public_key(lab, n)
    before = known.read_text()
    known.write_text(before.replace(old, public_key(lab, 1)))
    assert known.read_text() != before
    try:
        yield
    finally:
        known.write_text(before)


def public_key(lab: Workspace, n: int) -> str:
    return Path(lab.layout.ssh / f"host-{n}.pub").read_text().split()[1]


def test_an_unreachable_host_is_named_and_the_others_change_when_told_to(
    fleet: Workspace,
) -> None:
    fleet.on("lab-1", "systemctl stop corral-tiny-long")
    with cut_off(fleet, 2):
        done = fleet.deploy()
        stopped = fleet.pid("lab-1", "tiny-long")
        without = fleet.deploy("--data", "without_failed=true")
        pid = fleet.pid("lab-1", "tiny-long")
        verified = fleet.corral("verify", *INVENTORY)
    assert done.returncode == 1, said(done)
    assert "[lab-2] Could not connect" in said(done)
    assert "[lab-2] is left out. Next: check that `ssh -i " in said(done)
    assert "wave 1 does not start: lab-2 failed before, or was not reached" in said(done)
    assert "Traceback" not in said(done)
    assert stopped == 0
    assert without.returncode == 1, said(without)
    assert pid > 0
    assert verified.returncode == 1
    assert "lab-2" in verified.stdout
    assert "FAILED" in verified.stdout


def test_a_changed_host_key_is_refused_by_deploy_and_verify(fleet: Workspace) -> None:
    before = look(fleet, "lab-2")
    with another_host_key(fleet, 2):
        done = fleet.deploy()
        verified = fleet.corral("verify", "lab-2", *INVENTORY)
    assert done.returncode == 1, said(done)
    assert "[lab-2] SSH host key error" in said(done)
    assert "[lab-2] is left out. Next: check that `ssh -i " in said(done)
    assert "Traceback" not in said(done)
    assert verified.returncode == 1
    assert "its host key is not the one in line " in verified.stderr
    assert "@@@" not in verified.stdout + verified.stderr
    assert look(fleet, "lab-2") == before
    assert fleet.corral("verify", "lab-2", *INVENTORY).returncode == 0
