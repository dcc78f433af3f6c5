"""Reserve the ports of servers and of the gateway: nobody else can answer there while one is down.

Any local user may listen above port 1024. With these packet rules such a listener gets no
connection: its answers to the first packet are dropped in the host's network stack.
"""

import pwd
import re
import shutil
from pathlib import Path

from corral_host.instance.stored_plan import NAME as PLAN
from corral_host.instance.unit_file import ENABLED, unit_file_state
from corral_host.packets.redirect import ask
from corral_host.system.commands import HostError, output, quiet, read_json, say, write_atomic

# No instance can have a table (corral_NAME) or a unit (corral-NAME) of these names.
TABLE = "inet served_by_corral"
UNIT = "served-by-corral.service"
# root, and the users that systemd makes for DynamicUser= (systemd.exec(5)).
MAY_SERVE = "{ 0, 61184-65519 }"
# The user of a gateway, made by HAProxy's package.
HAPROXY = "haproxy"
ANEW = "table {table}\ndelete table {table}\n"
# With SYN cookies a first answer has no user. It is dropped, too: a user could turn SYN cookies on
# by filling the queue of a socket of their own.
# A match of `tcp` is none for other protocols, whose packets are nobody's to answer here: names are
# asked for by UDP, as by apt's own user.
CHAIN = """\
table {table} {{
    chain {chain} {{
        type filter hook output priority filter; policy accept;
        meta l4proto != tcp accept
        tcp sport != {{ {ports} }} accept
        tcp flags & (syn|ack) != (syn|ack) accept
        meta skuid {users} accept
        drop
    }}
}}
"""
RULES = ANEW + CHAIN.replace("{chain}", "answers")
SERVICE = """\
# Written by Corral: before the network is up, as any user may listen once it is.
[Unit]
Description=Corral: ports that only servers and the gateway of this host answer from
DefaultDependencies=no
# A firewall of the distribution begins with removing all rules.
After=nftables.service local-fs.target
Before=network-pre.target shutdown.target
Wants=network-pre.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={nft} -f {file}

[Install]
WantedBy=multi-user.target
"""


def ports(plan):
    """Ports of the servers of a host, of their spares and of its gateway, sorted."""
    return sorted({*server_ports(plan), *gateway_ports(plan)})


def server_ports(plan):
    """Ports of the planned generations, and of those that serve until the switch."""
    planned = [ports_of(one) for one in plan["instances"]]
    return sorted(set().union(*planned, *(served_of(one["folder"]) for one in plan["instances"])))


def ports_of(instance):
    """Ports of an instance and its spare; a unix socket has none, plans of old have no spare."""
    spare = instance.get("activation", {}).get("spare")
    return {one["endpoint"]["port"] for one in (instance, spare) if one} - {None}


def served_of(folder):
    """Ports of the generation that serves, by the folder of its instance."""
    plan = read_json(Path(folder) / "current" / PLAN)
    return ports_of(plan) if plan else set()


def served_here(instances):
    """Ports of the serving generations of all instances below a folder."""
    return set().union(*(served_of(link.parent) for link in Path(instances).glob("*/current")))


def gateway_ports(plan):
    """Ports of the gateway; with a certificate none: clients would notice a stranger by it."""
    gateway = plan.get("gateway")
    if not gateway or gateway["tls"]:
        return []
    return sorted({pool["port"] for pool in gateway["pools"]} | {gateway["metrics_port"]} - {None})


def gateway_users():
    try:
        return f"{{ 0, {pwd.getpwnam(HAPROXY).pw_uid} }}"
    except KeyError:
        return "{ 0 }"


def rules(plan):
    """The nftables text of all rules; it replaces earlier ones."""
    chains = [("answers", server_ports(plan), MAY_SERVE)]
    chains += [("gateway", gateway_ports(plan), gateway_users())]
    return ANEW.format(table=TABLE) + "".join(
        CHAIN.format(table=TABLE, chain=chain, ports=", ".join(map(str, numbers)), users=users)
        for chain, numbers, users in chains
        if numbers
    )


def file_of(plan):
    return file_in(plan["paths"]["keys"])


def file_in(keys):
    """``keys``: the folder of keys."""
    return Path(keys).parent / "served-ports.nft"


def texts(plan):
    """Path -> text of the files that restore the rules at boot."""
    file = file_of(plan)
    unit = SERVICE.format(file=file, nft=shutil.which("nft") or "/usr/sbin/nft")
    return {file: rules(plan), Path(plan["paths"]["units"]) / UNIT: unit}


def in_force():
    """Ports that are reserved now."""
    if not shutil.which("nft"):
        return []
    done = ask(f"list table {TABLE}\n")
    found = re.findall(r"tcp sport != (\{[^}]*\}|\d+) accept", done.stdout)
    return sorted(int(number) for one in found for number in re.findall(r"\d+", one))


def is_reserved(plan):
    """Whether the rules apply now and after a boot; True if this host cannot have any."""
    if not shutil.which("nft"):
        # The plan's packages bring nft.
        return False
    if unusable():
        return True
    written = [path.read_text() if path.exists() else None for path in texts(plan)]
    wanted = list(texts(plan).values()) if ports(plan) else [None, None]
    comes_back = not ports(plan) or unit_file_state(UNIT) == ENABLED
    return written == wanted and comes_back and sorted(in_force()) == ports(plan)


def unusable():
    """Why this host accepts no packet rules, or None. Changes nothing."""
    if not shutil.which("nft"):
        return "nft is not installed"
    done = ask(RULES.format(table=TABLE, ports="1", users=MAY_SERVE), "--check")
    return done.stderr.strip().splitlines()[0] if done.returncode else None


def port_status(port):
    """For verify: whether a port is reserved, or cannot be on this host; and a detail."""
    if port in in_force():
        state = unit_file_state(UNIT)
        if state != ENABLED:
            return False, f"not after a boot: {UNIT} is {state or 'gone'}"
        return True, f"port {port} answers for servers alone"
    why = unusable()
    detail = (
        f"no packet rules on this host: {why}" if why else f"any user may answer on port {port}"
    )
    return bool(why), detail


def reserve(plan):
    """Apply the rules, now and at each boot; returns the ports. Raises HostError."""
    if why := unusable():
        say(f"the ports of this host's servers are not reserved: {why}")
        return {"ports": []}
    files = texts(plan)
    if not ports(plan):
        return remove_rules(files)
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Files beside keys are for root alone, whether they hold a secret or not.
        write_atomic(path, text, mode=0o600 if path == file_of(plan) else 0o644)
    output("systemctl", "daemon-reload")
    output("systemctl", "enable", "--quiet", UNIT)
    lay(next(iter(files.values())))
    return {"ports": ports(plan)}


def remove_rules(files):
    """Remove the rules of a host that serves on no port any more."""
    # After a boot it is active, and would stay in systemd's list without its file.
    quiet("disable", "--now", "--quiet", UNIT)
    for path in files:
        path.unlink(missing_ok=True)
    output("systemctl", "daemon-reload")
    lay(f"table {TABLE}\ndelete table {TABLE}\n")
    return {"ports": []}


def lay(text):
    done = ask(text)
    if done.returncode:
        raise HostError(
            f"the ports of this host's servers could not be reserved: {done.stderr.strip()}",
            "fix that, then run the same deploy again",
        )
