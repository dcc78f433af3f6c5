"""Wait for a condition, never for a time."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

from tests.lab.workspace import Workspace

_PAUSE_SECONDS = 0.2


def wait_for(condition: Callable[[], bool], what: str, *, limit_seconds: float = 60) -> None:
    """Wait until the condition holds; fails with ``what`` if it does not in time."""
    deadline = time.monotonic() + limit_seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_seconds} s: {what}"
        time.sleep(_PAUSE_SECONDS)


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
