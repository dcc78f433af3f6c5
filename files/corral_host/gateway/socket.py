"""HAProxy's runtime API, by the socket of its master, which reaches old workers too.

A worker that a reload has replaced finishes the requests that it has.
"""

import csv
import ipaddress
import re
import socket

from corral_shared import gateway_lines

from corral_host.system.commands import HostError, write_atomic

RUN = "/run/corral-gateway"
SOCKET = f"{RUN}/master.sock"
# Not in RUN, which belongs to HAProxy: root writes nothing where another user may put links.
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
                f"HAProxy does not answer ({error})", "on the gateway: systemctl status haproxy"
            ) from error


def order(command, worker=CURRENT):
    """Run a command that answers nothing on success. Raises HostError with any other answer."""
    if answer := ask(command, worker):
        raise HostError(f"HAProxy says to `{command}`: {answer}")


def workers():
    """Addresses of the workers: the current one, then old ones that finish their requests."""
    old = re.findall(r"^(\d+)\s+worker\s+[1-9]", ask("show proc", worker=""), re.MULTILINE)
    return [CURRENT, *(f"@!{pid}" for pid in old)]


def running_generation():
    """The generation that runs, or None if HAProxy does not run."""
    return current_worker()[0]


def current_worker():
    """Generation and pid of the worker that accepts connections; None, None if there is none."""
    try:
        info = ask("show info")
    except HostError:
        return None, None
    found = (re.search(rf"^{name}: (\w+)$", info, re.MULTILINE) for name in ("description", "Pid"))
    generation, pid = (one and one[1] for one in found)
    return generation, pid


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
            "place": f"{line['srv_addr']}:{line['srv_port']}",
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
    """Save drains and weights for the next start or reload with this configuration.

    The ports are the configuration's: HAProxy would prefer those of the file. It reads the file as
    a user of its own; there is no secret in it.
    """
    version, head, *lines = ask("show servers state").splitlines()
    columns = head.removeprefix("# ").split(" ")
    known = [dict(zip(columns, line.split(" "))) for line in lines]
    found = [state_of(line, known) for line in gateway_lines.server_lines(config)]
    kept = [" ".join(row.values()) for row in found if row]
    write_atomic(SERVERS, "\n".join([version, head, *kept]) + "\n", mode=0o644)


def state_of(line, known):
    """The known state of a server in its pool, of this address if possible; None for a new one."""
    name, port = line["server"], line["place"].rpartition(":")[2]
    own = [row for row in known if is_about(row, line)]
    # A server that moved has a new name at a known address; one that begins to, keeps its state.
    best = [row for row in own if row["srv_port"] == port and at(row, line)]
    best += [row for row in own if row["srv_name"] == name] + own
    return {**best[0], "srv_name": name, "srv_port": port} if best else None


def is_about(row, line):
    same_pool = line["pool"] in (row["be_name"], None)
    return same_pool and gateway_lines.base(row["srv_name"]) == gateway_lines.base(line["server"])


def at(row, line):
    """Whether a row has the address of a line; a host name in the line matches any."""
    written = line["place"].rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(written) == ipaddress.ip_address(row["srv_addr"])
    except ValueError:
        return True
