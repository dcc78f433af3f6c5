"""Packet rules of a switch: who sends to a server's port is sent on, or told to come again.

One nftables table for each instance, gone when no switch goes on. What the helper itself sends
carries a mark and passes unchanged.
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
# Where packets of this host's servers arrive; where the kernel starts to follow connections; where
# their addresses change.
ARRIVED = {"delivered": "type filter hook input priority filter"}
FOLLOWED = {
    "from_outside": "type filter hook prerouting priority raw",
    "from_here": "type filter hook output priority raw",
}
CHANGED = {
    "arriving": "type nat hook prerouting priority dstnat",
    "leaving": "type nat hook output priority -100",
}
# What happens to new connections. The first comes long before the second: what stands when the
# kernel starts to follow connections must never meet rules that change addresses. The last keeps
# what was sent on alive.
FOLLOW, SEND_ON, LET_GO = "follow", "send on", "let go"


def unusable(name):
    """Why this host takes no packet rules, or None. Lays none."""
    if not shutil.which("nft"):
        return "nft is not installed"
    sample = {"address": "0.0.0.0", "port": 1}
    onward = {"endpoint": sample, "spare": sample, "zone": 1}
    done = ask(text(name, onward, SEND_ON, refused=(1,), kept=(1,)), "--check")
    return done.stderr.strip().splitlines()[0] if done.returncode else None


def lay(name, onward=None, stage=None, *, refused=(), kept=()):
    """Replace the rules of an instance. Raises HostError.

    ``onward``: endpoint and spare, the ends of what is sent on, and the zone in which the kernel
    remembers that, another for each switch; ``refused``: ports that take no new connection;
    ``kept``: ports where a connection that stands takes no new request.
    """
    done = ask(text(name, onward, stage, refused=refused, kept=kept))
    if done.returncode:
        raise HostError(f"packet rules for {name}: {done.stderr.strip()}")


def refuse(name, port):
    """No new requests to a port, None where there is none; gives why that cannot be, or None."""
    obstacle = port and unusable(name)
    if port and not obstacle:
        lay(name, refused=(port,), kept=(port,))
    return obstacle


def remove(name):
    """Take all rules of an instance away; there need be none. Raises HostError."""
    if not shutil.which("nft"):
        return
    table = f"table inet corral_{name}"
    done = ask(f"add {table}\ndelete {table}\n")
    if done.returncode and "Operation not permitted" not in done.stderr:
        raise HostError(f"packet rules of {name} stay: {done.stderr.strip()}")


def ask(rules, *options):
    return subprocess.run(
        ["nft", *options, "-f", "-"], input=rules, capture_output=True, text=True, check=False
    )


def text(name, onward=None, stage=None, *, refused=(), kept=()):
    """The whole as one transaction; chains stay, as connections that were sent on need them."""
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
    port, spare = onward["endpoint"]["port"], onward["spare"]["port"]
    zone = f"ct zone set {onward['zone']}"
    return [f"tcp dport {port} {zone}", f"tcp sport {{ {port}, {spare} }} {zone}"]


def changed(onward, stage):
    # Behind an accept a rule changes nothing, but what was sent on needs it.
    passes = () if stage == SEND_ON else ("accept",)
    return [OURS, *passes, f"{FIRST_PACKET} {onwards(onward['endpoint'], onward['spare'])}"]


def onwards(endpoint, spare):
    """What matches a connection to ``endpoint``, of no other host, and where it goes."""
    address = ipaddress.ip_address(endpoint["address"])
    port, to = endpoint["port"], spare["port"]
    if address.is_unspecified:
        return f"fib daddr type local tcp dport {port} redirect to :{to}"
    if address.version == 6:
        return f"ip6 daddr {address} tcp dport {port} dnat ip6 to [{address}]:{to}"
    return f"ip daddr {address} tcp dport {port} dnat ip to {address}:{to}"
