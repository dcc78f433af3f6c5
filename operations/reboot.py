"""Reboot a host and wait until it is up again.

pyinfra's own server.reboot compares uptimes, which in a container are the machine's, and gives a
server with terabytes of memory to test five minutes.
"""

from __future__ import annotations

import time

from paramiko import SSHException
from pyinfra.api.command import FunctionCommand, StringCommand
from pyinfra.api.host import Host
from pyinfra.api.state import State

from operations import Commands
from operations.connection import arguments
from operations.messages import complain, inform

LIMIT_SECONDS = 1800
_PAUSE_SECONDS = 2
_SECONDS_BETWEEN_LINES = 60
# When this boot's systemd began; to the second, and no boot is that short.
_BOOTED = StringCommand("systemctl", "show", "--property=UserspaceTimestamp", "--value")
# Detached, as the connection dies with it.
_REBOOT = StringCommand("(sleep 1; systemctl reboot) >/dev/null 2>&1 </dev/null &")
_SETTLED = StringCommand("timeout 300 systemctl is-system-running --wait; true")


def reboot(reason: str) -> Commands:
    """Commands that reboot a host, saying why, and end once its boot has."""
    yield FunctionCommand(_reboot, (reason,), {})


def _reboot(state: State, host: Host, reason: str) -> bool:  # noqa: ARG001 - pyinfra's
    inform(f"{reason}. Rebooting", host)
    before = _ask(host, _BOOTED)
    if before is None or _ask(host, _REBOOT) is None:
        complain("could not be rebooted", host)
        return False
    began = time.monotonic()
    if not _wait(host, before, began):
        limit = f"after {LIMIT_SECONDS // 60} minutes"
        complain(f"is not back {limit}. Next: look at its console", host)
        return False
    _ask(host, _SETTLED)
    inform(f"is back after {time.monotonic() - began:.0f} s", host)
    return True


def _wait(host: Host, before: str, began: float) -> bool:
    next_line = _SECONDS_BETWEEN_LINES
    while (waited := time.monotonic() - began) < LIMIT_SECONDS:
        time.sleep(_PAUSE_SECONDS)
        host.disconnect()
        host.connect(show_errors=False)
        if host.connected and _ask(host, _BOOTED) not in (None, before):
            return True
        if waited > next_line:
            inform(f"still away after {waited:.0f} s", host)
            next_line += _SECONDS_BETWEEN_LINES
    return False


def _ask(host: Host, command: StringCommand) -> str | None:
    """What a command says; None where the host does not answer, or the command failed."""
    try:
        ok, output = host.run_shell_command(command, **arguments(host))
    except (OSError, SSHException, EOFError):
        return None
    return output.stdout.strip() if ok else None
