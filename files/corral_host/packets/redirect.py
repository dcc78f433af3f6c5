"""Packet rules of a switch: clients of a server's port are redirected, or reset so they retry.

Each instance has one nftables table, which exists during a switch only. Packets of the helper
carry a mark and pass unchanged.
"""

import ipaddress
import shutil
import subprocess

from corral_host.server.http import MARK
from corral_host.system.commands import HostError

FIRST_PACKET = "tcp flags & (fin|syn|rst|ack) == syn"
WITH_DATA = "tcp flags & psh == psh"
RESET = "reject with tcp reset"
OURS = f"meta mark {MARK:#x} accept"
# Hooks where packets for this host's servers arrive; where the kernel starts to track connections;
# where addresses are translated.
ARRIVED = {"delivered": "type filter hook input priority filter"}
FOLLOWED = {
    "from_outside": "type filter hook prerouting priority raw",
    "from_here": "type filter hook output priority raw",
}
CHANGED = {
    "arriving": "type nat hook prerouting priority dstnat",
    "leaving": "type nat hook output priority -100",
}
# Stages for new connections. FOLLOW (connections are tracked) comes long before SEND_ON
# (redirected): a connection that stood when tracking began must never meet rules that translate
# addresses. LET_GO redirects no more, and keeps redirected connections alive.
FOLLOW, SEND_ON, LET_GO = "follow", "send on", "let go"


def unusable(name):
    """Why this host accepts no packet rules, or None. Changes nothing."""
    if not shutil.which("nft"):
        return "nft is not installed"
    sample = {"address": "0.0.0.0", "port": 1}
    onward = {"endpoint": sample, "before": sample, "spare": sample, "zone": 1}
    done = ask(text(name, onward, SEND_ON, refused=(1,), kept=(1,)), "--check")
    return done.stderr.strip().splitlines()[0] if done.returncode else None


def lay(name, onward=None, stage=None, *, refused=(), kept=()):
    """Replace the rules of an instance. Raises HostError.

    ``onward``: clients of its endpoint and of ``before`` (the previous endpoint) are redirected to
    ``spare``; ``zone`` is the conntrack zone of that, a new one for each switch. ``refused``: ports
    that accept no new connection. ``kept``: ports whose kept-alive connections accept no new
    request.
    """
    done = ask(text(name, onward, stage, refused=refused, kept=kept))
    if done.returncode:
        raise HostError(f"packet rules for {name}: {done.stderr.strip()}")


def refuse(name, *ports):
    """Refuse new requests to these ports; returns why that is impossible, or None.

    A port is None for an instance with a unix socket, for which nothing is done.
    """
    taken = tuple(dict.fromkeys(port for port in ports if port))
    obstacle = unusable(name) if taken else None
    if taken and not obstacle:
        lay(name, refused=taken, kept=taken)
    return obstacle


def remove(name):
    """Remove all rules of an instance, if it has any. Raises HostError."""
    if not shutil.which("nft"):
        return
    table = f"table inet corral_{name}"
    done = ask(f"add {table}\ndelete {table}\n")
    if done.returncode and "Operation not permitted" not in done.stderr:
        raise HostError(f"packet rules of {name} could not be removed: {done.stderr.strip()}")


def ask(rules, *options):
    return subprocess.run(
        ["nft", *options, "-f", "-"], input=rules, capture_output=True, text=True, check=False
    )


def text(name, onward=None, stage=None, *, refused=(), kept=()):
    """All rules as one transaction; chains stay, as redirected connections need them."""
    table = f"inet corral_{name}"
    stopped = [f"{FIRST_PACKET} tcp dport {port} {RESET}" for port in refused]
    stopped += [f"tcp dport {port} {WITH_DATA} {RESET}" for port in kept]
    rules = dict.fromkeys(ARRIVED, [OURS, *stopped])
    if onward:
        rules |= dict.fromkeys(FOLLOWED, followed(onward))
        rules |= dict.fromkeys(CHANGED, changed(onward, stage)) if stage != FOLLOW else {}
    hooks = {**ARRIVED, **FOLLOWED, **CHANGED}
    lines = [f"add table {table}"]
    lines += [f"add chain {table} {chain} {{ {hooks[chain]}; policy accept; }}" for chain in rules]
    lines.append(f"flush table {table}")
    lines += [f"add rule {table} {chain} {rule}" for chain in rules for rule in rules[chain]]
    return "\n".join([*lines, ""])


def followed(onward):
    ports = list(dict.fromkeys(end["port"] for end in served(onward)))
    zone = f"ct zone set {onward['zone']}"
    answering = ", ".join(map(str, [*ports, onward["spare"]["port"]]))
    return [*(f"tcp dport {port} {zone}" for port in ports), f"tcp sport {{ {answering} }} {zone}"]


def served(onward):
    """Endpoints that clients use; journals of earlier versions have only one."""
    ends = [onward["endpoint"], onward.get("before") or onward["endpoint"]]
    return ends[:1] if ends[0] == ends[1] else ends


def changed(onward, stage):
    # After an accept the rules match nothing, but redirected connections need them to exist.
    passes = () if stage == SEND_ON else ("accept",)
    ways = [onwards(end, onward["spare"]) for end in served(onward)]
    return [OURS, *passes, *(f"{FIRST_PACKET} {way}" for way in ways)]


def onwards(endpoint, spare):
    """The rule that redirects connections to ``endpoint`` on this host to ``spare``."""
    here, there = addresses(endpoint, spare)
    port, to = endpoint["port"], spare["port"]
    family, nfproto = ("ip6", "ipv6") if here.version == 6 else ("ip", "ipv4")
    if here.is_unspecified and there.is_unspecified:
        return f"fib daddr type local tcp dport {port} redirect to :{to}"
    match = f"{family} daddr {here}"
    if here.is_unspecified:
        match = f"meta nfproto {nfproto} fib daddr type local"
    target = here if there.is_unspecified else there
    shown = f"[{target}]" if target.version == 6 else target
    return f"{match} tcp dport {port} dnat {family} to {shown}:{to}"


def out_of_reach(endpoint, spare):
    """Why clients of an endpoint cannot be redirected to a spare, or None."""
    if endpoint["socket"]:
        return "it moves away from a unix socket"
    here, there = addresses(endpoint, spare)
    # The kernel accepts no packet from outside for a loopback address.
    if here.version != there.version or (there.is_loopback and not here.is_loopback):
        return f"clients of {here} cannot be redirected to {there}"
    return None


def addresses(*ends):
    return [ipaddress.ip_address(end["address"]) for end in ends]
