"""The lab's hosts: make, boot and cut them off; their names and connection data."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from corral.files import write_atomic
from lab import cgroups, disks, host_files, network, processes, ssh
from lab.descriptions import host_spec
from lab.layout import ROOM, Layout
from lab.platforms import DEFAULT

_COMPILER_CACHE_ON_HOST = "/var/cache/corral/ccache"
_SUPERVISOR = (sys.executable, "-m", "lab.supervisor")
_PROPAGATE = Path("/run/systemd/nspawn/propagate")


def connection_data(layout: Layout, n: int) -> dict[str, object]:
    """pyinfra's host data for reaching host n by ssh."""
    return {
        "ssh_hostname": str(layout.address(n)),
        "ssh_user": "root",
        "ssh_key": str(layout.ssh_key),
        "ssh_known_hosts_file": str(layout.known_hosts),
        "ssh_strict_host_key_checking": "yes",
    }


def hosts_up(layout: Layout) -> list[str]:
    """Names of the hosts in the lab's record; empty if there is no lab."""
    return [layout.host_name(n) for n in recorded(layout)]


def recorded(layout: Layout) -> list[int]:
    """Numbers of the hosts in the lab's record."""
    if not layout.record_file.exists():
        return []
    numbers: list[int] = json.loads(layout.record_file.read_text())["hosts"]
    return numbers


def record(layout: Layout, numbers: list[int]) -> None:
    """Write the lab's record."""
    fields = {"checkout": str(layout.checkout), "hosts": numbers}
    write_atomic(layout.record_file, json.dumps(fields, indent=1), next_step=ROOM)


def present(layout: Layout) -> list[int]:
    """Numbers of the hosts whose disk is complete, running or not."""
    return sorted(int(disk.name.removeprefix("lab-")) for disk in layout.hosts.glob("lab-*"))


def remove_half_made(layout: Layout) -> None:
    """Remove the disks that a killed `up` was making."""
    for partial in layout.hosts.glob("*.partial"):
        disks.remove(partial)


def make(layout: Layout, n: int, base: Path) -> None:
    """Make the disk of host n; an existing one is complete and stays."""
    disk = layout.disk(n)
    if disk.exists():
        return
    partial = layout.hosts / f"{n}.partial"
    own = disks.make(partial, base)
    host_files.write(own, layout, host_spec(n), ssh.ensure_host_key(layout, n))
    partial.rename(disk)


def platform(layout: Layout, n: int) -> str:
    """The distribution of host n, as the catalog names it; the default without a disk."""
    release = layout.disk(n) / "base" / "usr/lib/os-release"
    if not release.exists():
        return DEFAULT
    lines = release.read_text().replace('"', "").splitlines()
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    return f"{fields['ID']}-{fields['VERSION_ID']}"


def running(layout: Layout, n: int) -> bool:
    """Whether host n's supervisor runs."""
    path = _run_file(layout, n)
    return path.exists() and processes.alive(processes.read(path))


def boot(layout: Layout, n: int) -> None:
    """Power host n on, unless it runs. `ssh.wait_until_booted` waits for it."""
    if running(layout, n):
        return
    _clear(layout, n)
    processes.start(
        layout.host_name(n),
        [*_SUPERVISOR, layout.cgroup(n), *disks.command_on(layout.disk(n), _nspawn(layout, n))],
        run=layout.run,
        log=layout.log,
        cwd=layout.checkout,
    )


def power_cut(layout: Layout, n: int) -> None:
    """Cut host n's power: all its processes die at once; its disk stays."""
    path = _run_file(layout, n)
    if path.exists():
        processes.stop(processes.read(path), at_once=True)
        path.unlink()
    _clear(layout, n)


def clear_all(layout: Layout) -> None:
    """Remove what the lab's hosts left on the controller, recorded or not."""
    _remove_leftovers(layout.cgroup_pattern, layout.machine_pattern)


def link(layout: Layout, n: int, *, up: bool) -> None:
    """Plug or pull host n's network cable."""
    network.set_link(layout, n, up=up)


def joined(layout: Layout, n: int, *, to_network: bool) -> None:
    """Disconnect host n somewhere in the network, or connect it; its own cable stays plugged."""
    network.set_joined(layout, n, joined=to_network)


def _clear(layout: Layout, n: int) -> None:
    _remove_leftovers(layout.cgroup(n), layout.machine(n))


def _remove_leftovers(cgroup: str, machine: str) -> None:
    """Remove leftovers of a killed nspawn; both names may be patterns."""
    cgroups.kill(cgroup)
    for folder in _PROPAGATE.glob(machine):
        folder.rmdir()


def _run_file(layout: Layout, n: int) -> Path:
    return layout.run / f"{layout.host_name(n)}.json"


def _nspawn(layout: Layout, n: int) -> list[str]:
    return [
        "systemd-nspawn",
        "--quiet",
        "--register=no",
        "--keep-unit",
        "--settings=no",
        "--boot",
        f"--directory={disks.root(layout.disk(n))}",
        f"--machine={layout.machine(n)}",
        f"--hostname={layout.host_name(n)}",
        f"--network-bridge={layout.bridge}",
        "--resolv-conf=off",
        "--timezone=off",
        "--link-journal=no",
        # systemd inside needs these to enforce IPAddressDeny= and DeviceAllow=.
        "--capability=CAP_BPF",
        "--system-call-filter=bpf",
        # A lab's disks are thrown away, so a host's syncs need not reach the controller's disk.
        "--suppress-sync=yes",
        f"--bind={layout.compiler_cache}:{_COMPILER_CACHE_ON_HOST}",
    ]
