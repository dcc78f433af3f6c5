"""Talk to HAProxy through the socket of its master, which reaches old workers too.

A worker that was replaced by a reload goes on with the requests that it has.
"""

import csv
import re
import socket

from corral_host.tools import HostError, write_atomic

RUN = "/run/corral-gateway"
SOCKET = f"{RUN}/master.sock"
# Not in the folder above, which is HAProxy's: root writes nothing where somebody else puts links.
SERVERS = f"{RUN}.servers"
CURRENT = "@1"
TIMEOUT_SECONDS = 5

# Bits of srv_admin_state and values of srv_op_state (HAProxy 2.4 to 3.0, "show servers state").
MAINTENANCE, DRAINED = 0x01 | 0x02 | 0x04 | 0x20, 0x08 | 0x10
RUNNING = 2


def ask(command, worker=CURRENT):
    """Answer of a command. Raises HostError."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(TIMEOUT_SECONDS)
        try:
            link.connect(SOCKET)
            link.sendall(f"{worker} {command}".strip().encode() + b"\n")
            link.shutdown(socket.SHUT_WR)
            parts = iter(lambda: link.recv(65536), b"")
            return b"".join(parts).decode().strip()
        except OSError as error:
            raise HostError(
                f"HAProxy does not answer ({error}). Next: systemctl status haproxy, there"
            ) from error


def order(command, worker=CURRENT):
    """A command that answers nothing if it went well."""
    if said := ask(command, worker):
        raise HostError(f"HAProxy says to `{command}`: {said}")


def workers():
    """How to address each worker: the current one, then those that end their requests."""
    old = re.findall(r"^(\d+)\s+worker\s+[1-9]", ask("show proc", worker=""), re.MULTILINE)
    return [CURRENT, *(f"@!{pid}" for pid in old)]


def running_generation():
    """The generation that runs, or None where HAProxy does not."""
    try:
        found = re.search(r"^description: (\w+)$", ask("show info"), re.MULTILINE)
    except HostError:
        return None
    return found.group(1) if found else None


def servers():
    """All servers of the current worker, by name; sessions are those of all workers."""
    sessions = [rows(ask("show stat -1 4 -1", worker)) for worker in workers()]
    checks = {row["svname"]: row for row in sessions[0]}
    found = {}
    for line in states():
        name, admin = line["srv_name"], int(line["srv_admin_state"])
        check = checks[name]
        found[name] = {
            "server": name,
            "pool": line["be_name"],
            "up": int(line["srv_op_state"]) == RUNNING,
            "admin": admin_word(admin),
            "weight": int(line["srv_uweight"]),
            "sessions": sum(int(r["scur"]) for rs in sessions for r in rs if r["svname"] == name),
            "check": f"{check['check_status']} {check['last_chk']}".strip(),
        }
    return found


def admin_word(bits):
    if bits & MAINTENANCE:
        return "maint"
    return "drain" if bits & DRAINED else "ready"


def states():
    return rows("\n".join(ask("show servers state").splitlines()[1:]), delimiter=" ")


def rows(text, delimiter=","):
    """A table whose first line begins with ``#``."""
    lines = text.strip().removeprefix("# ").splitlines()
    return list(csv.DictReader(lines, delimiter=delimiter))


def save(config):
    """Keep drains and weights for the next start or reload with this configuration.

    HAProxy would go on with the ports of the file, not with those of its configuration. It reads
    the file as a user of its own; there is no secret in it.
    """
    ports = dict(re.findall(r"^  server (\S+) \S*:(\d+) ", config, re.MULTILINE))
    version, head, *lines = ask("show servers state").splitlines()
    place = head.removeprefix("# ").split(" ").index("srv_port")
    kept = [version, head]
    for fields in (line.split(" ") for line in lines):
        if fields[3] in ports:
            kept.append(" ".join([*fields[:place], ports[fields[3]], *fields[place + 1 :]]))
    write_atomic(SERVERS, "\n".join(kept) + "\n", mode=0o644)
