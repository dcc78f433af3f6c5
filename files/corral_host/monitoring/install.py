"""Put the monitoring of this host in place: first its files, then, with the packages there, start.

A package starts its service when it is installed: the drop-in that keeps it from listening on all
addresses is there before.
"""

import hashlib
import json
import os
import time
from pathlib import Path

from corral_host.checks.prometheus import answer
from corral_host.monitoring.programs import fetch_keys
from corral_host.observe.monitored import (
    applied,
    applied_path,
    keyrings,
    monitoring_digest,
    private_digest,
    text_at,
)
from corral_host.system.commands import (
    HostError,
    digest_or_none,
    output,
    quiet,
    show,
    write_atomic,
)

# Prometheus answers before it has read its log of the last hours.
ANSWER_SECONDS = 60
PAUSE_SECONDS = 0.5


def write(document):
    """Write the files of ``monitoring``, and forget that it was applied.

    ``document``: a plan, with ``secret_texts``: path -> text of each of its secrets; and
    ``apt_config``, see programs.py.
    """
    paths, plan = document["paths"], document["monitoring"]
    secrets = document.get("secret_texts", {})
    before = applied(paths) or {}
    refuse_foreign(plan, before)
    parts = {"files": files_of(plan), "units": plan["units"]}
    both = {name: sorted({*before.get(name, ()), *part}) for name, part in parts.items()}
    note(paths, {"digest": "", **both})
    fetch_keys(document, before.get("sha256", {}))
    changed = [path for path, text in plan["files"].items() if text_at(path) != text]
    for path in changed:
        make_folder(path, 0o755)
        write_atomic(path, plan["files"][path])
    for path, text in secrets.items():
        if private_digest(path) != hashlib.sha256(text.encode()).hexdigest():
            make_folder(path, 0o700)
            write_atomic(path, text, mode=0o600)
            changed.append(path)
    output("systemctl", "daemon-reload")
    return {"changed": changed}


def files_of(plan):
    """All that goes with the monitoring: its files, secrets, and keyrings of its repositories."""
    return [*plan["files"], *plan.get("secrets", ()), *keyrings(plan)]


def make_folder(path, mode):
    """The folder of a file; whatever the umask, the user of a unit can go through it."""
    folder = Path(path).parent
    if not folder.is_dir():
        folder.mkdir(parents=True)
        folder.chmod(mode)
        if mode == 0o755 and folder.parent.stat().st_uid == os.geteuid():
            folder.parent.chmod(folder.parent.stat().st_mode | 0o055)


def refuse_foreign(plan, before):
    """Raises HostError where a program of the plan runs that somebody else set up."""
    for unit in plan.get("answers", {}):
        if unit in before.get("units", ()):
            continue
        if show(unit, "ActiveState").get("ActiveState") == "active":
            raise HostError(
                f"{unit} runs here, and Corral did not set it up",
                "`corral export monitoring --as prometheus -o FOLDER` feeds that one; or, to have "
                f"it replaced, on the host `systemctl disable --now {unit}`, then deploy again",
            )


def start(document):
    """Enable and restart the units of ``monitoring``, remove what it no longer has, and note it."""
    paths, plan = document["paths"], document["monitoring"]
    files = files_of(plan)
    remove(paths, files, plan["units"])
    for unit in plan["units"]:
        output("systemctl", "enable", "--quiet", unit)
        output("systemctl", "restart", unit)
    for unit, url in plan.get("answers", {}).items():
        wait_for_answer(unit, url)
    digest = monitoring_digest(plan)
    note(paths, {
        "digest": digest, "files": sorted(files), "units": list(plan["units"]),
        "sha256": {
            **{path: sha256(text) for path, text in plan["files"].items()},
            **{path: digest_or_none(path) for path in keyrings(plan)},
        },
        "programs": [
            {name: one[name] for name in ("package", "version")} for one in plan.get("programs", ())
        ],
    })  # fmt: skip
    return {"started": list(plan["units"])}


def wait_for_answer(unit, url):
    """Raises HostError if a unit does not answer in time, such as where its port is taken."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while problem := answer(url):
        failed = show(unit, "ActiveState").get("ActiveState") == "failed"
        if failed or time.monotonic() > deadline:
            raise HostError(
                f"{unit} does not answer at {url}: {problem}",
                f"`journalctl --unit {unit}` on the host says why; then deploy again",
            )
        time.sleep(PAUSE_SECONDS)


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def stop(document):
    """Remove what Corral put here for monitoring; packages of the distribution stay."""
    paths = document["paths"]
    removed = remove(paths, (), ())
    applied_path(paths).unlink(missing_ok=True)
    return {"removed": removed}


def remove(paths, but_files, but_units):
    found = applied(paths) or {"files": [], "units": []}
    units = [unit for unit in found["units"] if unit not in but_units]
    files = [path for path in found["files"] if path not in but_files]
    for unit in units:
        # Before its files: systemd would no longer know a unit without one.
        quiet("disable", "--now", unit)
    for path in files:
        Path(path).unlink(missing_ok=True)
    if units or files:
        output("systemctl", "daemon-reload")
    return files


def note(paths, record):
    path = applied_path(paths)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    write_atomic(path, json.dumps(record) + "\n")
