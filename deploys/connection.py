"""Connections: failed ones are reported with a next step, open ones are tuned."""

from __future__ import annotations

from functools import cache
from socket import IPPROTO_TCP, TCP_NODELAY, socket

from pyinfra import host, state
from pyinfra.connectors.ssh import SSHConnector

from corral.inventory.hosts import Host, HostSpec
from corral.remote.unreached import check_ssh
from operations.live import take_terminal
from operations.messages import complain, guard_log


def guard_terminal() -> None:
    """Whatever hosts say, nothing of it commands the terminal that this run is watched in."""
    guard_log()
    take_terminal()


@cache
def report_unreached() -> None:
    """Say once what to do about hosts that pyinfra left out; it says itself what went wrong.

    Where no host is reached at all pyinfra ends before any deploy code runs.
    """
    for failed in sorted(state.failed_hosts, key=lambda one: one.name):
        data = failed.data.dict()  # type: ignore[no-untyped-call]
        step = check_ssh(Host(name=failed.name, data=data, spec=HostSpec()))
        complain(f"[{failed.name}] is left out. Next: {step}, then run the same deploy again")


def send_at_once() -> None:
    """Turn off Nagle's algorithm, which paramiko leaves on: 54 -> 10 ms a command on loopback."""
    connector = host.connector
    if isinstance(connector, SSHConnector) and connector.client:
        transport = connector.client.get_transport()
        if transport and isinstance(transport.sock, socket):
            transport.sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
