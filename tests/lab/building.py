"""Engine builds in lab tests: lost releases, jobs killed at a point, and releases on a host."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.lab.workspace import Done, Workspace

ENGINE, JOB = "llama.cpp", "build-llama.cpp"
ENTRY, LOCK = "catalog/engines/llama.cpp.toml", "corral.lock"
RELEASES = "/opt/corral/engines/llama.cpp"
JOB_FOLDER = f"/var/lib/corral/jobs/{JOB}"
SERVER_SOURCE = "tools/server/server.cpp"
_FIRST_LINE = '#include "server-context.h"'

Seen = tuple[str, int]


def store(lab: Workspace) -> Path:
    """The engine's archives on the controller."""
    return lab.layout.archives / ENGINE


def archive(lab: Workspace) -> Path:
    """The only archive in the store."""
    (found,) = store(lab).glob("*.tar.zst")
    return found


def forget(lab: Workspace, *hosts: str, archives: bool = True) -> None:
    """Remove the release from hosts, under their running servers, and from the store."""
    for host in hosts:
        lab.on(host, f"rm -rf {RELEASES}/* && rm -rf {JOB_FOLDER}")
    if archives:
        shutil.rmtree(store(lab), ignore_errors=True)


def when_log_says(lab: Workspace, host: str, words: str, then: str) -> None:
    """Wait on the host itself for a line of the job's log, then run a script there."""
    log = f"{JOB_FOLDER}/log"
    until = f"until grep --quiet --no-messages '{words}' {log}; do sleep 0.02; done"
    lab.on(host, f'timeout 300 sh -c "{until}" && {then}')


def deploy_cut_off(lab: Workspace, host: str, words: str) -> Done:
    """A deploy whose build is killed, with all its processes, when its log has this text."""
    lab.on(host, f"rm -rf {JOB_FOLDER}")
    deploy = lab.start_deploy("--limit", host)
    when_log_says(lab, host, words, f"systemctl kill --signal=KILL corral-job-{JOB}.service")
    text = deploy.communicate()[0]
    return Done(deploy.args, deploy.returncode, text, "")


def seen(lab: Workspace, host: str, instance: str) -> Seen:
    """Names below the releases' folder, hidden ones too, and the server's process."""
    return lab.on(host, f"ls -A {RELEASES}"), lab.pid(host, instance)


def manifest(lab: Workspace, host: str) -> dict[str, Any]:
    """The manifest of the only release."""
    found: dict[str, Any] = json.loads(lab.on(host, f"cat {RELEASES}/*/manifest.json"))
    return found


def wrong_files(lab: Workspace, host: str) -> list[str]:
    """Files of the only release that differ from its manifest."""
    files = manifest(lab, host)["files"]
    listed = lab.on(host, f"cd {RELEASES}/* && sha256sum {' '.join(files)}").splitlines()
    digests = {name: digest for digest, name in (line.split() for line in listed)}
    return [name for name, entry in files.items() if digests[name] != entry["sha256"]]


@contextmanager
def another_commit(lab: Workspace, commit: str) -> Iterator[None]:
    """Name this commit in catalog and lock file until the block ends."""
    before = json.loads((lab.path / LOCK).read_text())["engines"][ENGINE]["commit"]
    with ExitStack() as stack:
        for name in (ENTRY, LOCK):
            stack.enter_context(lab.edited(name, before, commit))
        yield


@contextmanager
def patched(lab: Workspace, line: str, *, above: str = _FIRST_LINE) -> Iterator[None]:
    """Add a patch to the engine until the block ends: a line on top of the server's source."""
    folder = lab.path / "catalog" / "patches"
    folder.mkdir(exist_ok=True)
    name = f"test-{hashlib.sha256(line.encode()).hexdigest()[:8]}.patch"
    file = f"--- a/{SERVER_SOURCE}\n+++ b/{SERVER_SOURCE}\n"
    (folder / name).write_text(f"{file}@@ -1,1 +1,2 @@\n+{line}\n {above}\n")
    try:
        with lab.edited(ENTRY, "\ntargets = ", f'\npatches = ["{name}"]\ntargets = '):
            yield
    finally:
        (folder / name).unlink()
