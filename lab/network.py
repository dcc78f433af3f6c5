"""The lab's network: a bridge on the controller, with masquerading to reach package mirrors."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from ipaddress import IPv4Network

from corral.errors import CorralError
from lab import kernel, ssh
from lab.commands import run
from lab.layout import Layout


def ensure(layout: Layout) -> None:
    """Set up bridge, forwarding and masquerading; may be repeated."""
    _refuse_taken_subnet(layout)
    if layout.bridge not in _links():
        _ip("link", "add", layout.bridge, "type", "bridge")
    address = f"{layout.controller_address}/{layout.subnet.prefixlen}"
    _ip("address", "replace", address, "dev", layout.bridge)
    _ip("link", "set", layout.bridge, "up")
    _nft(_ruleset(layout))
    kernel.ensure(layout)


def remove(layout: Layout) -> None:
    """Remove everything that `ensure` made; the last lab restores kernel settings."""
    for name in _links():
        if name == layout.bridge or name.startswith(layout.veth_prefix):
            _ip("link", "delete", name)
    _nft(f"add table ip {layout.nft_table}\ndelete table ip {layout.nft_table}\n")
    kernel.restore(layout)


def set_link(layout: Layout, n: int, *, up: bool) -> None:
    """Plug or pull the network cable of host n."""
    _ip("link", "set", layout.veth(n), "up" if up else "down")


def set_joined(layout: Layout, n: int, *, joined: bool) -> None:
    """Disconnect host n behind its own cable, whose carrier it still sees; or connect it again."""
    where = ["master", layout.bridge] if joined else ["nomaster"]
    _ip("link", "set", layout.veth(n), *where)


def shape(layout: Layout, numbers: Iterable[int], *, mbit: int) -> None:
    """Give each host, and the controller, a link of this rate in each direction."""
    limit = ["root", "tbf", "rate", f"{mbit}mbit", "burst", "256kb", "latency", "50ms"]
    for device in (layout.bridge, *map(layout.veth, numbers)):
        run(["tc", "qdisc", "replace", "dev", device, *limit], where="the lab's network")
    for n in numbers:
        ssh.run_on(layout, n, shlex.join(["tc", "qdisc", "replace", "dev", "host0", *limit]))


def _refuse_taken_subnet(layout: Layout) -> None:
    """Raise CorralError if another network of this machine is within the lab's subnet."""
    for route in json.loads(_ip("-json", "-4", "route", "show", "table", "all")):
        destination = route["dst"]
        if destination == "default" or route.get("dev") == layout.bridge:
            continue
        if IPv4Network(destination).subnet_of(layout.subnet):
            raise CorralError(
                f"the lab's network {layout.subnet}",
                f"is in use on this machine by {route.get('dev', 'a route')}",
                "use a checkout at another path, which gets another network",
            )


def _ruleset(layout: Layout) -> str:
    """One nft transaction; the add before the delete ensures that the delete never fails."""
    table = f"table ip {layout.nft_table}"
    leaving = f"ip saddr {layout.subnet} ip daddr != {layout.subnet}"
    return f"""add {table}
delete {table}
{table} {{
  chain outward {{
    type nat hook postrouting priority srcnat
    {leaving} masquerade
  }}
}}
"""


def _links() -> list[str]:
    return [link["ifname"] for link in json.loads(_ip("-json", "link", "show"))]


def _ip(*arguments: str) -> str:
    return run(["ip", *arguments], where="the lab's network")


def _nft(ruleset: str) -> None:
    run(["nft", "-f", "-"], stdin=ruleset, where="the lab's packet rules")
