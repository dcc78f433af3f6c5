"""How a login becomes root on a host, by pyinfra's keys of host data, and why it did not.

Corral never asks for a password: it works unattended, over new connections.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from corral.errors import CorralError
from corral.inventory.hosts import Host

# Messages of these programs where they require a password or refuse; the last is of the helper, or
# of another command, that would run as another user (files/corral_host/__main__.py, remote/run.py).
_REFUSALS = re.compile(
    r"^(?:(?:sh: [0-9]+: |Password: )?(?:sudo|sudo-rs|doas|dzdo|su): .+"
    r"|.+ is not in the sudoers file.*|the (?:helper|login) is not root, but .+)$",
    re.MULTILINE,
)


def as_root(data: Mapping[str, Any], command: Sequence[str]) -> list[str]:
    """Wrap a command so that it runs as the user of host data, without asking for a password.

    In pyinfra 3.10's order: ``_doas`` outside, then ``_dzdo``, ``_sudo``, ``_su_user``.
    """
    if user := data.get("_su_user"):
        # "$0" "$@": no shell parses an argument again.
        command = ["su", str(user), "-s", "/bin/sh", "-c", 'exec "$0" "$@"', "--", *command]
    for program in ("sudo", "dzdo", "doas"):
        if data.get(f"_{program}"):
            user = data.get(f"_{program}_user")
            end = [] if program == "doas" else ["--"]
            command = [program, "-n", *(["-u", str(user)] if user else []), *end, *command]
    return list(command)


def root_refused(host: Host, output: str) -> CorralError | None:
    """Why a login did not become root, from the output of a failed command; None where it did."""
    refusals = [line.strip() for line in _REFUSALS.findall(output)]
    return not_root(host, refusals[-1]) if refusals else None


def not_root(host: Host, reason: str) -> CorralError:
    """The error of a host whose login is not root, with the next step for its data."""
    named = host.data.get("ssh_user")
    user = str(named or "the login")
    reason = f"it is user {reason}" if reason.isdigit() else reason
    how = next((key for key in _KEYS if host.data.get(key)), None)
    if how is None:
        what = f"{user} is not root there, and its data has no key to become root ({reason})"
        step = 'add "_sudo": True to the data of the host (or _doas, _dzdo), or log in as root'
        return CorralError(host.name, what, step)
    program = how.strip("_").removesuffix("_user")
    what = f"{user} cannot become root by {program} without a password ({reason})"
    return CorralError(host.name, what, _STEPS[program].format(user=named or "USER"))


_KEYS = ("_doas", "_dzdo", "_sudo", "_su_user")
_STEPS = {
    "sudo": "on the host, as root: `echo '{user} ALL=(ALL) NOPASSWD: ALL' > "
    "/etc/sudoers.d/corral && chmod 0440 /etc/sudoers.d/corral`, then run the same command again",
    "doas": "on the host, as root: `echo 'permit nopass {user}' >> /etc/doas.conf`, then run the "
    "same command again",
    "dzdo": "allow {user} to run dzdo there without a password, then run the same command again",
    "su": 'log in as root, or use "_sudo": True in place of "_su_user": su asks for a password',
}
