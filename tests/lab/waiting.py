"""Wait for a condition, never for a time."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Callable

from tests.lab.workspace import Workspace

# Longer than any machine needs for what is waited for: only what never comes fails.
PATIENCE_SECONDS = 600
_PAUSE_SECONDS = 0.2


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until the condition holds; fails with ``what`` if it never does."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS} s: {what}"
        time.sleep(_PAUSE_SECONDS)


def wait_on(lab: Workspace, host: str, condition: str, what: str) -> None:
    """Wait for a shell's condition on a host: the host looks, over one connection.

    A host that goes down meanwhile is connected to again.
    """
    looks = f"until {condition}; do sleep {_PAUSE_SECONDS}; done"
    asked = f"timeout 10 sh -c {shlex.quote(looks)}"
    wait_for(lambda: lab.try_on(host, asked).returncode == 0, what)


def wait_for_end(lab: Workspace, host: str, job: str, what: str) -> None:
    """Wait until the job's unit is gone, by systemd."""
    runs = f"systemctl is-active corral-job-{job}.service | grep -Eqx '(de)?activ(e|ating)'"
    wait_on(lab, host, f"! {runs}", what)


def job_runs(lab: Workspace, host: str, job: str) -> bool:
    """Whether the job's unit exists, by systemd."""
    done = lab.try_on(host, f"systemctl is-active corral-job-{job}.service")
    return done.stdout.strip() in ("active", "activating", "deactivating")


def job_log(lab: Workspace, host: str, job: str) -> str:
    """Output of the job so far."""
    return lab.try_on(host, f"cat /var/lib/corral/jobs/{job}/log").stdout


def kill(deploy: subprocess.Popen[str]) -> None:
    """Kill a running deploy."""
    assert deploy.poll() is None, "the deploy ended before it was killed"
    deploy.kill()
    deploy.communicate()
