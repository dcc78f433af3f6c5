"""Reboot a host and wait until it is up again.

pyinfra's own server.reboot compares uptimes, which in a container are the machine's, and gives a
server with terabytes of memory to test five minutes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from paramiko import SSHException
from pyinfra.api.command import FunctionCommand, StringCommand
from pyinfra.api.host import Host
from pyinfra.api.state import State

from corral.errors import CorralError
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


Drained = Callable[[], AbstractContextManager[None]]


def reboot(reason: str, *, drained: Drained = nullcontext) -> Commands:
    """Commands that reboot a host, print the reason, and end once its boot has.

    + drained: a block around the reboot that keeps clients away; may raise CorralError
    """
    yield FunctionCommand(_reboot, (reason, drained), {})


def _reboot(state: State, host: Host, reason: str, drained: Drained) -> bool:  # noqa: ARG001
    """Called by pyinfra; False where it failed."""
    try:
        with drained():
            _boot(host, reason)
    except CorralError as error:
        complain(error, host)
        return False
    return True


def _boot(host: Host, reason: str) -> None:
    """Raises CorralError where the host does not reboot."""
    inform(f"{reason}. Rebooting", host)
    before = _ask(host, _BOOTED)
    if before is None or _ask(host, _REBOOT) is None:
        raise CorralError(host.name, "could not be rebooted", "run the same deploy again")
    began = time.monotonic()
    if not _wait(host, before, began):
        what = f"is not back {LIMIT_SECONDS // 60} minutes after its reboot"
        raise CorralError(host.name, what, "look at its console")
    _ask(host, _SETTLED)
    inform(f"is back after {time.monotonic() - began:.0f} s", host)


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
