"""Ask the helper that is installed on a host: a connection for each question."""

from __future__ import annotations

import getpass
import json
import platform
import subprocess
from typing import Any

from corral.errors import CorralError
from corral.inventory import Host
from corral.remote import ssh_command

# ssh(1) has no other exit code for its own failures.
_SSH_FAILED = 255


class UnreachedError(CorralError):
    """The host did not answer; what runs there goes on."""


def ask(host: Host, helper: str, words: list[str], text: str = "") -> Any:
    """The answer to a command of the helper; ``text`` is its standard input.

    Raises UnreachedError when the connection failed, CorralError when the helper did.
    """
    command = ssh_command(host, ["python3", helper, *words])
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode == _SSH_FAILED:
        what = f"not reached ({done.stderr.strip() or 'no reason given'})"
        raise UnreachedError(host.name, what, f"see that `ssh {host.name}` works, then ask again")
    if done.returncode != 0:
        raise fault(host.name, done.stderr.strip() or f"exit code {done.returncode}")
    try:
        return json.loads(done.stdout)
    except json.JSONDecodeError as error:
        what = f"no JSON in the answer: {done.stdout[:80]!r}"
        raise CorralError(host.name, what, "keep shell start-up files silent there") from error


def fault(where: str, text: str) -> CorralError:
    """The helper's words as an error; it says what comes next in its own last sentence."""
    what, _, next_step = text.partition("Next: ")
    what = what.strip().removeprefix(f"{where}: ")
    return CorralError(where, what, next_step.strip() or "mend that, then ask again")


def operator() -> str:
    """Who asks, for locks and journals."""
    return f"{getpass.getuser()} on {platform.node()}"
