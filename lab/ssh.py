"""ssh to the lab's hosts, with a key and known_hosts of the lab's own, checked strictly."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

from corral.errors import CorralError
from corral.files import write_atomic
from lab.commands import run
from lab.layout import ROOM, Layout

_BOOT_TIMEOUT_SECONDS = 240
_PAUSE_SECONDS = 0.2
_SSH_FAILED = 255
_BOOTED = frozenset({"running", "degraded"})


def ensure_key(layout: Layout) -> None:
    """The controller's key for this lab."""
    if not layout.ssh_key.exists():
        _generate(layout.ssh_key, f"corral-lab-{layout.lab_id}")


def ensure_host_key(layout: Layout, n: int) -> Path:
    """The private host key of host n; its public half is beside it."""
    key = layout.ssh / f"host-{n}"
    if not key.exists():
        _generate(key, layout.host_name(n))
    return key


def write_client_files(layout: Layout, hosts: list[int]) -> None:
    """config and known_hosts for these hosts, by name and by address."""
    known = [f"{_names(layout, n)} {_public(layout.ssh / f'host-{n}')}\n" for n in hosts]
    write_atomic(layout.known_hosts, "".join(known), next_step=ROOM)
    named = [f"Host {layout.host_name(n)}\n  HostName {layout.address(n)}\n" for n in hosts]
    write_atomic(layout.ssh_config, "".join(named) + _common(layout), next_step=ROOM)


def command(layout: Layout, n: int, *remote: str) -> list[str]:
    """The ssh command line for host n."""
    return ["ssh", "-F", str(layout.ssh_config), layout.host_name(n), *remote]


def run_on(layout: Layout, n: int, *remote: str, timeout_seconds: float = 60) -> str:
    """Standard output of a command on host n; raises CorralError if it fails."""
    argv = command(layout, n, *remote)
    return run(argv, where=layout.host_name(n), timeout_seconds=timeout_seconds)


def wait_until_booted(layout: Layout, n: int) -> str:
    """Wait until host n has booted: "running", or "degraded" if units failed."""
    deadline = time.monotonic() + _BOOT_TIMEOUT_SECONDS
    state = "no answer"
    while time.monotonic() < deadline:
        state = _system_state(layout, n)
        if state in _BOOTED:
            return state
        time.sleep(_PAUSE_SECONDS)
    what = f"is not up after {_BOOT_TIMEOUT_SECONDS} s: {state}"
    raise CorralError(layout.host_name(n), what, f"read {_log(layout, n)}")


def refuse_failed_units(layout: Layout, n: int) -> None:
    """Raise CorralError naming the failed units of host n, if any."""
    failed = run_on(layout, n, "systemctl", "--failed", "--plain", "--no-legend").strip()
    if failed:
        what = f"booted with failed units:\n    {failed}"
        raise CorralError(layout.host_name(n), what, f"read {_log(layout, n)}")


def _system_state(layout: Layout, n: int) -> str:
    argv = command(layout, n, "systemctl", "is-system-running")
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode == _SSH_FAILED:
        return done.stderr.strip()
    return done.stdout.strip()


def _log(layout: Layout, n: int) -> Path:
    return layout.log / f"{layout.host_name(n)}.log"


def _generate(key: Path, comment: str) -> None:
    """Generate a key in a temporary folder and move its public half first, so it is complete."""
    partial = key.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    made = partial / key.name
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", made], where="ssh key")
    made.with_suffix(".pub").rename(key.with_suffix(".pub"))
    made.rename(key)
    partial.rmdir()


def _names(layout: Layout, n: int) -> str:
    return f"{layout.host_name(n)},{layout.address(n)}"


def _public(key: Path) -> str:
    kind, blob = key.with_suffix(".pub").read_text().split()[:2]
    return f"{kind} {blob}"


def _common(layout: Layout) -> str:
    return f"""Host lab-*
  User root
  IdentityFile {layout.ssh_key}
  IdentitiesOnly yes
  UserKnownHostsFile {layout.known_hosts}
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  HostKeyAlgorithms ssh-ed25519
  BatchMode yes
  ConnectTimeout 5
"""
