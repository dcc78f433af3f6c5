"""Evidence of a failed lab test: output of its commands, and logs of its hosts."""

from __future__ import annotations

import re
import subprocess
from collections import deque

from lab.layout import Layout

# People read the report: keep only the end of each output, of the last commands.
_COMMANDS, _LINES = 8, 40
# Leave out the thousands of successful requests.
_GOOD_REQUEST = r'haproxy\[.* 200 [0-9]* .*"'
_SCRIPT = (
    "journalctl --no-pager --output=short-precise --since=@{since} "
    "--unit=haproxy --unit='corral-*' | grep -v '{good}' | tail -n {lines}"
)

_ran: deque[str] = deque(maxlen=_COMMANDS)


def forget() -> None:
    """Start with a new test."""
    _ran.clear()


def note(done: subprocess.CompletedProcess[str]) -> None:
    """Keep the end of a command's output."""
    lines = f"{done.stdout}{done.stderr}".splitlines()[-_LINES:]
    command = " ".join(done.args)
    _ran.append("\n".join([f"$ {command}", *lines, f"(exit code {done.returncode})"]))


def commands() -> str:
    """The last commands of a test, with the end of what each printed."""
    return "\n".join(_ran)


def journals(layout: Layout, since: float) -> dict[str, str]:
    """Host -> end of the logs of its gateway and instances; + since: seconds since the epoch."""
    config = layout.ssh_config
    names = re.findall(r"^Host ([\w-]+)$", config.read_text(), re.M) if config.exists() else []
    return {name: _journal(layout, name, since) for name in names}


def _journal(layout: Layout, host: str, since: float) -> str:
    script = _SCRIPT.format(since=int(since), good=_GOOD_REQUEST, lines=_LINES)
    command = ["ssh", "-F", str(layout.ssh_config), host, script]
    try:
        done = subprocess.run(
            command, text=True, check=False, stdin=subprocess.DEVNULL, capture_output=True,
            timeout=30,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        return str(error)
    return done.stdout + done.stderr
