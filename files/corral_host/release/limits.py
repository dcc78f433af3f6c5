"""How much of a host a build may take: the servers beside it keep serving."""

import os

from corral_host.system import kernel
from corral_host.system.commands import HostError, output

# A large file of an engine takes one to two GiB to compile.
COMPILER_MIB = 2048
RESERVE_MIB = 1024


def cores():
    return os.cpu_count() or 1


def serves():
    """Whether an instance runs here."""
    pattern, flags = "corral-*.service", ("--plain", "--no-legend", "--state=active")
    lines = output("systemctl", "list-units", *flags, pattern).splitlines()
    return any(not line.startswith("corral-job-") for line in lines)


def room_mib():
    """Memory that a build may take now: what is available, less a tenth of all for the servers."""
    memory = kernel.memory()
    room = memory["available_mib"] - max(RESERVE_MIB, memory["total_mib"] // 10)
    if room < COMPILER_MIB:
        raise HostError(
            f"{memory['available_mib']} MiB of memory are available, too little to build beside "
            "what runs here",
            "stop something, or mark another host as builder",
        )
    return room


def parallel():
    """Compilers at a time."""
    return max(1, min(cores(), room_mib() // COMPILER_MIB))


def build_properties():
    """Of a build's unit. Where a server runs, one core stays free; of few cores, a quarter.

    No MemoryHigh, with which a build that needs more would crawl; no swap, for the same reason.
    A compiler that is killed fails the build with a message, so the unit goes on without it.
    """
    quota = max(100 * (cores() - 1), 75 * cores())
    return (
        *([f"CPUQuota={quota}%"] if serves() else ()),
        f"MemoryMax={room_mib()}M",
        "MemorySwapMax=0",
        "OOMPolicy=continue",
    )
