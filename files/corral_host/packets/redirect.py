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
    onward = {"endpoint": sample, "before": sample, "spare": sample, "zone": 1}
    done = ask(text(name, onward, SEND_ON, refused=(1,), kept=(1,)), "--check")
    return done.stderr.strip().splitlines()[0] if done.returncode else None


def lay(name, onward=None, stage=None, *, refused=(), kept=()):
    """Replace the rules of an instance. Raises HostError.

    ``onward``: endpoint, and before, which it moves away from, are sent on to spare; zone, in which
    the kernel remembers that, is another for each switch; ``refused``: ports that take no new
    connection; ``kept``: ports where a connection that stands takes no new request.
    """
    done = ask(text(name, onward, stage, refused=refused, kept=kept))
    if done.returncode:
        raise HostError(f"packet rules for {name}: {done.stderr.strip()}")


def refuse(name, *ports):
    """No new requests to these ports, None for a unix socket; gives why that cannot be, or None."""
    taken = tuple(dict.fromkeys(port for port in ports if port))
    obstacle = unusable(name) if taken else None
    if taken and not obstacle:
        lay(name, refused=taken, kept=taken)
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
    ports = list(dict.fromkeys(end["port"] for end in served(onward)))
    zone = f"ct zone set {onward['zone']}"
    answering = ", ".join(map(str, [*ports, onward["spare"]["port"]]))
    return [*(f"tcp dport {port} {zone}" for port in ports), f"tcp sport {{ {answering} }} {zone}"]


def served(onward):
    """Where clients come to; activations that an earlier version wrote down tell one place."""
    ends = [onward["endpoint"], onward.get("before") or onward["endpoint"]]
    return ends[:1] if ends[0] == ends[1] else ends


def changed(onward, stage):
    # Behind an accept a rule changes nothing, but what was sent on needs it.
    passes = () if stage == SEND_ON else ("accept",)
    ways = [onwards(end, onward["spare"]) for end in served(onward)]
    return [OURS, *passes, *(f"{FIRST_PACKET} {way}" for way in ways)]


def onwards(endpoint, spare):
    """What matches a connection to ``endpoint``, of no other host, and where it goes."""
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
    """Why clients of an endpoint cannot be sent on to a spare, or None."""
    if endpoint["socket"]:
        return "it moves away from a unix socket"
    here, there = addresses(endpoint, spare)
    # The kernel takes no packet from outside to a loopback address.
    if here.version != there.version or (there.is_loopback and not here.is_loopback):
        return f"clients of {here} cannot be sent on to {there}"
    return None


def addresses(*ends):
    return [ipaddress.ip_address(end["address"]) for end in ends]
