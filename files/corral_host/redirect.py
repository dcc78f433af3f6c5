"""Packet rules of a switch: who sends to a server's port is sent on, or told to come again.

One nftables table for each instance, gone when no switch goes on. What the helper itself sends
carries a mark and passes unchanged.
"""

import ipaddress
import shutil
import subprocess

from corral_host.server import MARK
from corral_host.tools import HostError

FIRST_PACKET = "tcp flags & (fin|syn|rst|ack) == syn"
WITH_DATA = "tcp flags & psh == psh"
RESET = "reject with tcp reset"
# The hooks in which addresses change, and the one where packets of this host's servers arrive.
SENT_ON = ("arriving", "leaving")
CHAINS = {
    "arriving": "type nat hook prerouting priority dstnat",
    "leaving": "type nat hook output priority -100",
    "delivered": "type filter hook input priority filter",
}


def unusable(name):
    """Why this host takes no packet rules, or None. Lays none."""
    if not shutil.which("nft"):
        return "nft is not installed"
    sample = {"address": "0.0.0.0", "port": 1}
    done = ask(text(name, sample, sample, sent_on=True, refused=(1,)), "--check")
    return done.stderr.strip().splitlines()[0] if done.returncode else None


def lay(name, endpoint, spare=None, *, sent_on=False, refused=(), kept=()):
    """Replace the rules of an instance. Raises HostError.

    ``sent_on``: new connections to ``endpoint`` reach ``spare``; ``refused``: ports that take no
    new connection; ``kept``: ports where a connection that stands takes no new request.
    """
    done = ask(text(name, endpoint, spare, sent_on=sent_on, refused=refused, kept=kept))
    if done.returncode:
        raise HostError(f"packet rules for {name}: {done.stderr.strip()}")


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


def text(name, endpoint, spare=None, *, sent_on=False, refused=(), kept=()):
    """The whole as one transaction; chains stay, as the connections sent on need their hooks."""
    table = f"inet corral_{name}"
    lines = [f"add table {table}"]
    lines += [
        f"add chain {table} {chain} {{ {hook}; policy accept; }}" for chain, hook in CHAINS.items()
    ]
    lines.append(f"flush table {table}")
    lines += [f"add rule {table} {chain} meta mark {MARK:#x} accept" for chain in CHAINS]
    if spare:
        # Behind an accept it does nothing, but connections that were sent on need it.
        passes = () if sent_on else ("accept",)
        onward = (*passes, f"{FIRST_PACKET} {onwards(endpoint, spare)}")
        lines += [f"add rule {table} {chain} {rule}" for chain in SENT_ON for rule in onward]
    stopped = [f"{FIRST_PACKET} tcp dport {port} {RESET}" for port in refused]
    stopped += [f"tcp dport {port} {WITH_DATA} {RESET}" for port in kept]
    lines += [f"add rule {table} delivered {rule}" for rule in stopped]
    return "\n".join([*lines, ""])


def onwards(endpoint, spare):
    """What matches a connection to ``endpoint``, of no other host, and where it goes."""
    address = ipaddress.ip_address(endpoint["address"])
    port, to = endpoint["port"], spare["port"]
    if address.is_unspecified:
        return f"fib daddr type local tcp dport {port} redirect to :{to}"
    if address.version == 6:
        return f"ip6 daddr {address} tcp dport {port} dnat ip6 to [{address}]:{to}"
    return f"ip daddr {address} tcp dport {port} dnat ip to {address}:{to}"
