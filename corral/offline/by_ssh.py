"""Hosts that this controller reaches by ssh alone: each gets the served bundle on its loopback.

ssh(1) forwards the port of the bundle's URL from a host back to the server here, for as long as it
is served: beyond one deploy, since downloads on a host outlast the connection that began them, and
again after a reboot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread
from urllib.parse import urlsplit

from corral.errors import CorralError
from corral.inventory.gateway import is_loopback
from corral.inventory.hosts import Host
from corral.remote.lease import Lease

Report = Callable[[str], None]
_PAUSE_SECONDS = 5
_WATCH_SECONDS = 0.5
_END_SECONDS = 15
# An sshd with `GatewayPorts yes` listens on all addresses instead, where strangers would reach it.
# Ends with its input, so that nothing stays there when this process dies.
_HOLD = r"""
exposed=$(printf '^ *[0-9]+: (0{8}|0{32}):%04X 0+:0000 0A' "$1")
if grep -qsE "$exposed" /proc/net/tcp /proc/net/tcp6; then
  echo 'its sshd forwards port '"$1"' to all addresses. Next: set "GatewayPorts clientspecified"' \
    'or "no" in its sshd_config, then `systemctl reload ssh` there'
  exit 1
fi
echo
echo '{"held": true}'
exec cat > /dev/null
"""
# OpenSSH 8.4 to 10 (clientloop.c, ssh.c).
_NOT_FORWARDED = "remote port forwarding failed"


@dataclass(frozen=True)
class Way:
    """A host, and the loopback address and port there that lead to the bundle."""

    host: Host
    address: str
    port: int


def ways(hosts: Sequence[Host], *, where: str) -> list[Way]:
    """Hosts whose bundle is at an address of their own loopback.

    + where: of the inventory. Raises CorralError where there is none, or for several ports
    """
    urls = [(host, host.spec.bundle.url) for host in hosts if host.spec.bundle]
    found = [Way(host, *at) for host, url in urls if (at := on_loopback(url))]
    if not found:
        what = 'no host has a "bundle" with a "url" on its own loopback'
        step = 'add "url": "http://127.0.0.1:8090" to the "bundle" of its hosts'
        raise CorralError(where, what, step)
    if len({way.port for way in found}) > 1:
        listed = ", ".join(sorted({str(way.port) for way in found}))
        what = f"the bundles of its hosts are at several ports: {listed}"
        raise CorralError(where, what, 'name one port in the "url" of all of them')
    return found


@contextmanager
def leading_here(ways: Sequence[Way], server: str, report: Report) -> Iterator[None]:
    """Lead hosts to a server of this controller, until the block ends.

    + server: its address:port; + report: also of a host that is not reached, which is tried again
    """
    ended = Event()
    remote = [way for way in ways if way.host.name != "@local"]
    # Daemons: one that waits for a host which is down does not hold up the end.
    threads = [
        Thread(target=_keep, args=(way, server, ended, report), daemon=True) for way in remote
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join(_END_SECONDS)


def _keep(way: Way, server: str, ended: Event, report: Report) -> None:
    reported = ""
    while not ended.is_set():
        try:
            lease = _opened(way, server)
        except CorralError as error:
            if reported != str(error):
                report(f"{error}\n  (tried again every {_PAUSE_SECONDS} s)")
            reported = str(error)
        else:
            reported = ""
            report(f"{way.host.name}: reaches the bundle at {way.address}:{way.port}, by ssh")
            while lease.lasts() and not ended.wait(_WATCH_SECONDS):
                pass
            lease.close()
            if not ended.is_set():
                report(f"{way.host.name}: its ssh connection ended and is opened again")
        ended.wait(_PAUSE_SECONDS)


def _opened(way: Way, server: str) -> Lease:
    """Raises CorralError."""
    bind = f"[{way.address}]" if ":" in way.address else way.address
    command = ["sh", "-c", _HOLD, "sh", str(way.port)]
    try:
        return Lease(way.host, command, back=f"{bind}:{way.port}:{server}")
    except CorralError as error:
        if _NOT_FORWARDED not in error.what:
            raise
        what = f"its sshd does not forward port {way.port}: it is taken there, or forbidden"
        step = (
            f"`ss -ltnp sport = :{way.port}` there; see AllowTcpForwarding and PermitListen in its "
            "sshd_config"
        )
        raise CorralError(way.host.name, what, step) from error


def on_loopback(url: str) -> tuple[str, int] | None:
    """Address and port of a URL on the loopback of whoever asks it; None for another one.

    A bundle is served without TLS.
    """
    parts = urlsplit(url)
    address = parts.hostname or ""
    if parts.scheme != "http" or (address != "localhost" and not is_loopback(address)):
        return None
    return address, parts.port or 80
