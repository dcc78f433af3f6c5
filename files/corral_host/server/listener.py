"""Check which process has the other end of a connection: a key goes only to the unit it is for.

While a server is down, any local user may listen on its port. So Corral connects first, finds out
which process has the other end, and then sends the key on the same connection.
"""

import contextlib
import ipaddress
import pwd
import socket
import struct
import time
from pathlib import Path

from corral_shared.text import printable_line

from corral_host.system.commands import HostError, show
from corral_host.system.processes import open_sockets, sockets, tcp_rows

LOOKS, LOOK_SECONDS = 4, 0.02


def refuse_stranger(instance, link):
    """Raises HostError unless a connected socket ends in the instance's unit.

    Tests whose server is a thread of their own process replace this function, and nothing else.
    """
    unit = instance.get("unit")
    if unit is None:
        # The server of a smoke run: its key is made for that run and opens nothing else.
        return
    if link.family == socket.AF_UNIX:
        refuse_process(unit, listener_behind(link))
    else:
        refuse_inodes(unit, link)


def listener_behind(link):
    """Pid that called listen() on the socket file; 0 for a process that this one cannot see."""
    credentials = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return struct.unpack("3i", credentials)[0]


def refuse_process(unit, pid):
    if pid not in processes_of(unit):
        raise HostError(*stranger_fault(unit, "its socket", pid))


def refuse_inodes(unit, link):
    for look in range(LOOKS):
        ends, mine = ends_of(link), sockets_of(unit)
        if ends and ends <= mine:
            return
        # A connection that is being accepted belongs to no process for a moment.
        time.sleep(LOOK_SECONDS * (look < LOOKS - 1))
    inode = min(ends - mine, default=None)
    raise HostError(*stranger_fault(unit, f"port {link.getpeername()[1]}", holder(inode)))


def ends_of(link):
    """Inodes of the sockets at the other end: the accepting one, else all that could accept.

    The accepting socket is looked up last: if nobody has accepted the connection by then, it waits
    at one of the sockets that were found listening before.
    """
    address, port = link.getpeername()[:2]
    listening = {one for at, number, one in sockets() if number == port and accepts(at, address)}
    end = other_end(link)
    return listening if end == "0" else {end}


def sockets_of(unit):
    """Inodes of all sockets that a unit has open."""
    return {inode for pid in processes_of(unit) for inode in open_sockets(pid)}


def accepts(at, address):
    """Whether a socket that listens at one address takes connections to another."""
    listens = plain(at)
    return listens.is_unspecified or listens == plain(address)


def plain(address):
    """The address without scope; an IPv4 address also if an IPv6 socket shows it as mapped."""
    found = ipaddress.ip_address(address.partition("%")[0])
    return getattr(found, "ipv4_mapped", None) or found


def other_end(link):
    """Inode of the accepting end of a connection; "0": not accepted yet, "": not on this host."""
    wanted = [same_end(end) for end in (link.getpeername(), link.getsockname())]
    ports = [end[1] for end in wanted]
    rows = [row for row in tcp_rows() if [row[0][1], row[1][1]] == ports]
    found = [inode for at, to, _, inode in rows if [same_end(at), same_end(to)] == wanted]
    return found[0] if found else ""


def same_end(end):
    return plain(end[0]), end[1]


def processes_of(unit):
    """Pids of the processes in the unit's control group, or below it."""
    group = show(unit, "ControlGroup").get("ControlGroup")
    numbers = [int(path.name) for path in Path("/proc").glob("[0-9]*")] if group else []
    return {pid for pid in numbers if is_in(group, pid)}


def is_in(group, pid):
    """Whether a process is in a control group, by systemd's hierarchy in cgroup v2 or v1."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return False
    found = [line.split(":", 2)[1:] for line in lines]
    return any(
        controllers in ("", "name=systemd") and f"{path}/".startswith(f"{group.rstrip('/')}/")
        for controllers, path in found
    )


def holder(inode):
    """Pid of a process that has a socket open; 0 if none is visible."""
    numbers = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
    return next((pid for pid in numbers if inode in open_sockets(pid)), 0)


def stranger_fault(unit, where, pid):
    """Message and next step: which process answers there, and that no key was sent."""
    again = f"`systemctl restart {unit}`"
    if pid == 0:
        return (
            f"{where} of {unit} is held by no process that is visible, or nobody listens any "
            "more: no key was sent",
            f"on the host, {again}, then ask again",
        )
    return (
        f"{where} of {unit} is answered by {describe_process(pid)}, which is no process of that "
        "unit: no key was sent",
        f"on the host, find out why that runs and stop it (`kill {pid}`), then {again}",
    )


def describe_process(pid):
    program = user = "unknown"
    with contextlib.suppress(OSError):
        program = printable_line(Path(f"/proc/{pid}/comm").read_text())
        number = Path(f"/proc/{pid}").stat().st_uid
        user = str(number)
        with contextlib.suppress(KeyError):
            user = pwd.getpwuid(number).pw_name
    return f"pid {pid} ({program}, user {user})"
