"""A port or a socket of a host as a socket file on this controller, by ssh(1)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from corral.inventory.hosts import Host
from corral.plan.instance import Endpoint
from corral.remote.lease import Lease

# Ends with its input, so that nothing stays here or there when this process dies.
_WAIT = ["sh", "-c", """echo; echo '{"held": true}'; exec cat > /dev/null"""]


@dataclass(frozen=True)
class Tunnel:
    """Leads to an endpoint of a host.

    + socket: path of a socket file here; None where the endpoint is an address of this machine
    + lasts: whether the connection still exists
    """

    socket: str | None
    lasts: Callable[[], bool]


@contextmanager
def tunnel(host: Host, endpoint: Endpoint) -> Iterator[Tunnel]:
    """Open a way to an endpoint of a host for the block.

    The file is in a folder of this user: no other user of the controller reaches the server by it.
    Raises CorralError where the host is not reached or does not forward. A server that its login
    may not reach shows at the first request.
    """
    if host.name == "@local":
        yield Tunnel(endpoint.socket, lambda: True)
        return
    # Not below TMPDIR: the path of a socket has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="corral-", dir="/tmp") as folder:  # noqa: S108
        socket = str(Path(folder) / "server")
        lease = Lease(host, _WAIT, forward=f"{socket}:{endpoint.socket or _address(endpoint)}")
        try:
            yield Tunnel(socket, lease.lasts)
        finally:
            lease.close()


def tunnel_url(host: Host, endpoint: Endpoint) -> str:
    """URL for requests by a tunnel: over a socket file, the host in it has no meaning."""
    by_address = host.name == "@local" and not endpoint.socket
    return f"http://{_address(endpoint)}" if by_address else "http://localhost"


def _address(endpoint: Endpoint) -> str:
    """Where a server is reached from its own host; it may listen on all addresses."""
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
    address = everywhere.get(str(endpoint.address), str(endpoint.address))
    return f"[{address}]:{endpoint.port}" if ":" in address else f"{address}:{endpoint.port}"
