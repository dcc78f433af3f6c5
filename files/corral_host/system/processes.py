"""Processes and the sockets that they hold, from /proc."""

import contextlib
import os
import re
import socket
from pathlib import Path


def tcp_rows(pid="self"):
    """TCP sockets in the network namespace of a process: local end, other end, state, inode.

    An end is address and port; a listening socket has state 0A (proc(5)). The inode of a
    connection is "0" until a process accepts it.
    """
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        with contextlib.suppress(FileNotFoundError):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                yield unpacked(fields[1], family), unpacked(fields[2], family), fields[3], fields[9]


def unpacked(end, family):
    packed, port = end.split(":")
    groups = [bytes.fromhex(packed[i : i + 8])[::-1] for i in range(0, len(packed), 8)]
    return socket.inet_ntop(family, b"".join(groups)), int(port, 16)


def sockets(pid="self"):
    """Listening TCP sockets in the network namespace of a process: (address, port, inode)."""
    return [(*end, inode) for end, _, state, inode in tcp_rows(pid) if state == "0A"]


def listeners(ports):
    """Who listens on the given ports: port -> pid, program and unit."""
    inodes = {inode: port for _, port, inode in sockets() if port in ports}
    found = {str(port): {"pid": 0, "program": "?", "unit": ""} for port in inodes.values()}
    for process in Path("/proc").glob("[0-9]*") if inodes else ():
        for inode in inodes.keys() & open_sockets(process.name):
            found[str(inodes[inode])] = {
                "pid": int(process.name),
                "program": (process / "comm").read_text().strip(),
                "unit": unit_of(process.name),
            }
    return found


def open_sockets(pid):
    found = set()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        for handle in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                target = os.readlink(f"/proc/{pid}/fd/{handle}")
                if target.startswith("socket:["):
                    found.add(target[8:-1])
    return found


def unit_of(pid):
    text = Path(f"/proc/{pid}/cgroup").read_text()
    found = re.search(r"/([^/\n]+\.service)", text)
    return found.group(1) if found else ""
