"""How much of a host a build or a release may take: the servers beside it keep serving."""

import os

from corral_host.system import kernel
from corral_host.system.commands import HostError, output

# A large file of an engine takes one to two GiB to compile.
COMPILER_MIB = 2048
RESERVE_MIB = 1024


def refuse_full(folder, size_bytes, needed_by):
    """Raises HostError if the disk of a folder has less than this free."""
    numbers = os.statvfs(folder)
    free = numbers.f_bavail * numbers.f_frsize
    if size_bytes > free:
        raise HostError(
            f"{folder.parent}: disk full; nothing was installed. {needed_by} needs "
            f"{size_bytes >> 20} MiB, only {free >> 20} MiB are free",
            "free space there, then run the same deploy again",
        )


def cores():
    return os.cpu_count() or 1


def serves():
    """Whether an instance runs here."""
    pattern, flags = "corral-*.service", ("--plain", "--no-legend", "--state=active")
    lines = output("systemctl", "list-units", *flags, pattern).splitlines()
    return any(not line.startswith("corral-job-") for line in lines)


def room_mib():
    """Memory that a build may use now: what is available, less a tenth of all for the servers."""
    memory = kernel.memory()
    room = memory["available_mib"] - max(RESERVE_MIB, memory["total_mib"] // 10)
    if room < COMPILER_MIB:
        raise HostError(
            f"{memory['available_mib']} MiB of memory are available, too little for a build beside "
            "what runs here",
            "stop an instance of this host, or mark another host as builder",
        )
    return room


def parallel():
    """How many compilers may run at a time."""
    return max(1, min(cores(), room_mib() // COMPILER_MIB))


def build_properties():
    """Limits of a build's unit. Beside a server, one core stays free; of few cores, a quarter.

    There is no MemoryHigh, which would slow a build down to a crawl, and no swap, for the same
    reason. A compiler that is killed fails the build with a message, so OOMPolicy is "continue".
    """
    quota = max(100 * (cores() - 1), 75 * cores())
    return (
        *([f"CPUQuota={quota}%"] if serves() else ()),
        f"MemoryMax={room_mib()}M",
        "MemorySwapMax=0",
        "OOMPolicy=continue",
    )
