"""How a login becomes root on a host, by pyinfra's keys of host data; and why it does not.

Corral asks nobody for a password: what it does goes on, over new connections, while nobody looks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from corral.errors import CorralError
from corral.inventory.hosts import Host

# What these programs say where they want a password, or refuse; the last is of the helper, or of
# another command, that would run as somebody else (files/corral_host/__main__.py, remote.py).
_REFUSALS = re.compile(
    r"^(?:(?:sh: [0-9]+: |Password: )?(?:sudo|sudo-rs|doas|dzdo|su): .+"
    r"|.+ is not in the sudoers file.*|the (?:helper|login) is not root, but .+)$",
    re.MULTILINE,
)


def by_root(data: Mapping[str, Any], words: Sequence[str]) -> list[str]:
    """The words that run ``words`` as the user that host data says, without any question.

    As pyinfra 3.10 wraps them: ``_doas`` outside, then ``_dzdo``, ``_sudo``, ``_su_user``.
    """
    if user := data.get("_su_user"):
        # "$0" "$@": no shell reads a word a second time.
        words = ["su", str(user), "-s", "/bin/sh", "-c", 'exec "$0" "$@"', "--", *words]
    for program in ("sudo", "dzdo", "doas"):
        if data.get(f"_{program}"):
            user = data.get(f"_{program}_user")
            end = [] if program == "doas" else ["--"]
            words = [program, "-n", *(["-u", str(user)] if user else []), *end, *words]
    return list(words)


def refused(host: Host, said: str) -> CorralError | None:
    """Why a login did not become root, from what a failed command said; None where it did."""
    found = [line.strip() for line in _REFUSALS.findall(said)]
    return not_root(host, found[-1]) if found else None


def not_root(host: Host, said: str) -> CorralError:
    """The error of a host whose login is not root, and what to do, by what its data says."""
    named = host.data.get("ssh_user")
    who = str(named or "the login")
    said = f"it is user {said}" if said.isdigit() else said
    how = next((key for key in _KEYS if host.data.get(key)), None)
    if how is None:
        what = f"{who} is not root there, and no key of its data says how to become root ({said})"
        step = 'add "_sudo": True to the data of the host (or _doas, _dzdo), or log in as root'
        return CorralError(host.name, what, step)
    program = how.strip("_").removesuffix("_user")
    what = f"{who} does not become root by {program} without a password ({said})"
    return CorralError(host.name, what, _STEPS[program].format(user=named or "USER"))


_KEYS = ("_doas", "_dzdo", "_sudo", "_su_user")
_STEPS = {
    "sudo": "on the host, as root: `echo '{user} ALL=(ALL) NOPASSWD: ALL' > "
    "/etc/sudoers.d/corral && chmod 0440 /etc/sudoers.d/corral`, then ask again",
    "doas": "on the host, as root: `echo 'permit nopass {user}' >> /etc/doas.conf`, then ask again",
    "dzdo": "let {user} run dzdo there without a password, then ask again",
    "su": 'log in as root, or use "_sudo": True in place of "_su_user": su asks for a password',
}
