"""Packet rules around a swarm's two ports: only addresses of the inventory reach them.

aria2 listens on all addresses and asks nobody who they are, so the kernel does.
"""

import ipaddress
import subprocess

from corral_host.system.commands import HostError

TABLE = "inet corral_swarm"
ANEW = f"table {TABLE}\ndelete table {TABLE}\n"
RULES = """\
table {table} {{
    chain members {{
        type filter hook input priority -10; policy accept;
        meta l4proto != tcp accept
        tcp dport != {{ {port}, {data_port} }} accept
        {family} saddr {{ {members} }} {family} daddr {own} accept
        drop
    }}
}}
"""


def rules(settings):
    """The nftables text; it replaces earlier rules."""
    own = ipaddress.ip_address(settings.me.address)
    same = [one for one in settings.addresses if ipaddress.ip_address(one).version == own.version]
    return ANEW + RULES.format(
        table=TABLE, port=settings.me.port, data_port=settings.me.data_port, own=own,
        family="ip" if own.version == 4 else "ip6", members=", ".join(sorted(same)),
    )  # fmt: skip


def put_up(settings):
    nft(rules(settings))


def take_down():
    nft(ANEW)


def nft(text):
    try:
        done = subprocess.run(["nft", "-f", "-"], input=text, capture_output=True, text=True)
    except FileNotFoundError as fault:
        raise HostError("nft is not installed", "apt-get install nftables") from fault
    if done.returncode != 0:
        raise HostError(f"nft refused the rules of the swarm: {done.stderr.strip()[:500]}")
