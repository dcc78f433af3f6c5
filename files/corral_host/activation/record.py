"""Activation report and current phase.

The phase is kept in memory (/run), so publishing it needs no disk space.
"""

import contextlib
import json
import time
from datetime import datetime, timezone
from pathlib import Path

from corral_host.system.commands import read_json, say, write_atomic
from corral_host.system.locks import boot_id

RUN = Path("/run/corral")


def job_name(instance):
    return f"activate-{instance}"


def new_report(spec, by, run):
    """The report of an activation that has done nothing yet. ``run``: the id of the job's run."""
    instance = spec["instance"]
    at = datetime.now(timezone.utc).isoformat(timespec="milliseconds")  # noqa: UP017 - Python 3.10
    return {
        "host": spec["host"], "instance": instance["name"], "at": at.replace("+00:00", "Z"),
        "by": by, "rollout": spec.get("rollout"), "from": None,
        "to": instance["generation"], "how": "none",
        "outcome": "refused", "serving": None, "reason": "", "phases": [], "gate": [],
        "revert_gate": [], "gap_seconds": None, "log": "", "boot_id": boot_id(), "run": run,
    }  # fmt: skip


@contextlib.contextmanager
def phase(report, name, detail=""):
    """Time a part of an activation and publish it as the current phase."""
    say(f"{report['instance']}: {name}{f' ({detail})' if detail else ''}")
    write_phase(report["instance"], {"name": name, "began": time.monotonic(), "detail": detail})
    began = time.monotonic()
    try:
        yield
    finally:
        report["phases"].append({"phase": name, "seconds": round(time.monotonic() - began, 2)})


def phase_file(job):
    return RUN / f"{job}.phase"


def write_phase(instance, document):
    RUN.mkdir(mode=0o755, exist_ok=True)
    write_atomic(phase_file(job_name(instance)), json.dumps(document))


def phase_of(job):
    """Current phase of a running job: name, seconds so far, detail; None if it has none."""
    found = read_json(phase_file(job))
    if found is None:
        return None
    seconds = round(time.monotonic() - found["began"], 1)
    return {"name": found["name"], "seconds": seconds, "detail": found["detail"]}


def forget_phase(job):
    phase_file(job).unlink(missing_ok=True)
