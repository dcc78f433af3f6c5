"""Hosts that come and go beside the fleet, through the lab's own functions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lab import disks, hosts, ssh
from tests.lab.workspace import Workspace


@contextmanager
def extra_host(lab: Workspace, n: int, *options: str) -> Iterator[str]:
    """Host n, booted; afterwards its disk, keys and place in the inventory are removed.

    + options: more of `corral lab up`; without any it is bare
    """
    up = lab.corral("lab", "up", "--hosts", str(n), *options)
    assert up.returncode == 0, up.stdout + up.stderr
    try:
        yield lab.layout.host_name(n)
    finally:
        remove_host(lab, n)


def remove_host(lab: Workspace, n: int) -> None:
    """Cut the power and remove the disk. `lab up` makes it again, with the same ssh host key."""
    hosts.power_cut(lab.layout, n)
    disks.remove(lab.layout.disk(n))
    rest = [number for number in hosts.recorded(lab.layout) if number != n]
    hosts.record(lab.layout, rest)
    ssh.write_client_files(lab.layout, rest)
