"""The settings of a member: its own place, the other members, and limits."""

import ipaddress
import re
from dataclasses import dataclass

from corral_host.system.commands import HostError

NAME = re.compile(r"[!-~]{1,255}")


@dataclass(frozen=True)
class Peer:
    """Where a member answers: its service on ``port``, its aria2 on the next one."""

    name: str
    address: str
    port: int

    @property
    def data_port(self):
        return self.port + 1


@dataclass(frozen=True)
class Settings:
    """``peers``: all members in the order of the inventory, this host among them.

    ``expected``: those that take part in this run; ``from_hub``: how many fetch from the hub at
    once; ``upload_bytes_per_second``: 0 for no limit; ``upload_seconds``: how long this host serves
    others after it has all that it wants.
    """

    me: Peer
    peers: tuple
    expected: tuple
    from_hub: int
    upload_bytes_per_second: int
    upload_seconds: int
    connections: int

    @property
    def others(self):
        return tuple(peer for peer in self.peers if peer != self.me)

    @property
    def addresses(self):
        """The addresses from which anything is answered."""
        return frozenset(peer.address for peer in self.peers)


def settings_of(document):
    """The settings in a job's spec. Raises HostError for any other shape."""
    try:
        peers = tuple(peer_of(one) for one in document["peers"])
        names = [peer.name for peer in peers]
        me = peers[names.index(document["name"])]
        expected = tuple(name for name in names if name in document["expected"])
        limits = {name: natural(document[name]) for name in LIMITS}
    except (KeyError, TypeError, ValueError, AttributeError) as fault:
        what = f"the description of the swarm is not one ({type(fault).__name__}: {fault})"
        raise HostError(what, "run the deploy again, with one version of Corral") from fault
    if len(set(names)) != len(names):
        raise HostError("a member of the swarm is named twice", "check the inventory")
    return Settings(me=me, peers=peers, expected=expected, **limits)


LIMITS = ("from_hub", "upload_bytes_per_second", "upload_seconds", "connections")


def peer_of(document):
    name, port = document["name"], natural(document["port"])
    if not NAME.fullmatch(name) or not 0 < port < 65535:
        raise ValueError("a member without a name or a port")
    return Peer(name, str(ipaddress.ip_address(document["address"])), port)


def natural(value):
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("not a number of zero or more")
    return value
