"""Ports that no other process of tests takes meanwhile, for servers that open them later."""

from __future__ import annotations

import contextlib
import functools
import itertools
import socket

# Below those that the kernel gives to connections (net.ipv4.ip_local_port_range).
_FIRST, _LAST, _OF_ONE_PROCESS = 20000, 32000, 100


def free_port() -> int:
    """A port that nobody has at any address."""
    return free_ports(1)[0]


def free_ports(count: int, *, in_a_row: int = 1) -> list[int]:
    """First ports of ``count`` rows of free ports; each row is free as a whole.

    Asked again, it may return the same ports.
    """
    first = _claimed()
    rows = range(first, first + _OF_ONE_PROCESS - in_a_row + 1, in_a_row)
    free = (row for row in rows if all(_is_free(row + n) for n in range(in_a_row)))
    found = list(itertools.islice(free, count))
    if len(found) < count:
        raise AssertionError(f"no {count} free ports from {first} on")
    return found


@functools.cache
def _claimed() -> int:
    """First port of a block that is this process's own until it ends.

    The kernel gives each name of an abstract socket to one process of a network namespace, as it
    does with ports.
    """
    for first in range(_FIRST, _LAST, _OF_ONE_PROCESS):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0corral-tests-ports-{first}")
        except OSError:
            claim.close()
            continue
        _CLAIMS.append(claim)
        return first
    raise AssertionError("each block of ports is claimed by another process of tests")


# They are held, not used.
_CLAIMS: list[socket.socket] = []


def _is_free(port: int) -> bool:
    with socket.socket() as one, contextlib.suppress(OSError):
        one.bind(("0.0.0.0", port))
        return True
    return False
