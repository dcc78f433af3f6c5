"""Faults on real lab hosts; each is a context manager that repairs the host at its end."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from lab import drop_ins, ssh
from lab.chaos.fleet import FOLDER, UNIT, Fleet

_FILES = Path(__file__).parent / "files"
_PROGRAM = "/root/chaos.py"
_UNITS = (UNIT, UNIT.replace(".service", "-spare.service"))
_HOOKS: dict[str, Literal["before", "after"]] = {
    "dies": "before",
    "squatted": "before",
    "wrong_binary": "before",
    "missing_shard": "before",
    "full_disk": "before",
    "clock": "before",
    "hangs": "after",
    "slow": "after",
    "late": "after",
}
_SAVED = ".chaos-saved"
_STOP_LASTING = "systemctl stop --quiet 'chaos-*'"
_RESTORE = (
    f"find /opt/corral /var/lib/corral/models -name '*{_SAVED}' |"
    f' while read -r saved; do mv -T "$saved" "${{saved%{_SAVED}}}"; done'
)


@contextmanager
def at_start(fleet: Fleet, n: int, fault: str, marker: str) -> Iterator[None]:
    """A fault of chaos.py in each start of the generation with ``marker`` in its command line.

    The drop-in is gone after a reboot, and with it the fault.
    """
    _send(fleet, n, _FILES / "chaos.py", _PROGRAM)
    before = f"ExecStartPre=+/usr/bin/python3 {_PROGRAM} {fault} {marker} %n"
    after = f"ExecStartPost=+/usr/bin/python3 {_PROGRAM} {fault} {marker} %n $MAINPID"
    line = before if _HOOKS[fault] == "before" else after
    fleet.on(n, drop_ins.lay(_UNITS, line))
    try:
        yield
    finally:
        fleet.on(n, f"{drop_ins.lift(_UNITS)}; {_STOP_LASTING}; {_RESTORE}")


@contextmanager
def full_disk(fleet: Fleet, n: int, marker: str) -> Iterator[None]:
    """From the new generation's first start on, the disk of generations and units is full."""
    folders = ("/var/lib/corral/instances", "/etc/systemd/system")
    for folder in folders:
        fleet.on(n, _COVER.format(folder=folder))
    try:
        with at_start(fleet, n, "full_disk", marker):
            yield
    finally:
        for folder in reversed(folders):
            fleet.on(n, _UNCOVER.format(folder=folder))
        fleet.on(n, "systemctl daemon-reload")


_COVER = """set -e; cp -a {folder} /run/chaos-kept; mount -t tmpfs -o size=24m tmpfs {folder}
cp -a /run/chaos-kept/. {folder}; rm -r /run/chaos-kept"""
# Copies the changes on the small disk to the one below it.
_UNCOVER = """set -e; rm -f {folder}/chaos-full
cp -a {folder} /run/chaos-kept; umount {folder}
find {folder} -mindepth 1 -delete; cp -a /run/chaos-kept/. {folder}; rm -r /run/chaos-kept"""


@contextmanager
def moved_clock(fleet: Fleet, n: int, marker: str) -> Iterator[None]:
    """At the new generation's first start the host's wall clock jumps by an hour."""
    _send(fleet, n, _FILES / "clock.c", "/root/clock.c")
    library = "/usr/local/lib/chaos-clock.so"
    fleet.on(
        n,
        f"gcc -shared -fPIC -O1 -o {library} /root/clock.c && echo 0 > /etc/chaos-clock-seconds"
        f" && echo {library} > /etc/ld.so.preload",
    )
    try:
        with at_start(fleet, n, "clock", marker):
            yield
    finally:
        # Processes that have loaded it continue with the real clock.
        fleet.on(n, "rm -f /etc/ld.so.preload /etc/chaos-clock-seconds")


@contextmanager
def stranger_on_gpu(fleet: Fleet, n: int, marker: str) -> Iterator[None]:
    """Another program holds the GPU's memory, so the new generation gets none of it."""
    described = "/etc/corral-lab/gpus.json"
    change = (
        "import json, pathlib, sys;"
        f" path = pathlib.Path('{described}'); data = json.loads(path.read_text());"
        " data['gpus'][0].update({'memory.free': 42, 'memory.used': 40918});"
        " data['apps'] = [{**app, 'unless': sys.argv[1]} for app in data['apps']];"
        " data['apps'].append({'cmdline_contains': 'chaos-stranger', 'used_memory_mib': 40400});"
        " path.write_text(json.dumps(data))"
    )
    fleet.on(
        n,
        f'cp {described} {described}.saved && python3 -c "{change}" {marker} &&'
        " systemd-run --quiet --collect --unit=chaos-stranger"
        " bash -c 'exec -a chaos-stranger sleep infinity'",
    )
    try:
        yield
    finally:
        fleet.on(n, f"{_STOP_LASTING}; mv {described}.saved {described}")


@contextmanager
def stale_locks(fleet: Fleet) -> Iterator[None]:
    """Lock files of holders that died long ago, before a reboot."""
    text = '{"by": "anna on desk", "since": "2026-01-01T10:00:00Z", "boot_id": "0", "pid": 4}'
    for n in fleet.numbers:
        for name in ("activate.lock", "rollout.lock"):
            folder = "/var/lib/corral/locks"
            fleet.on(n, f"install -d -m 700 {folder} && echo '{text}' > {folder}/{name}")
    yield


@contextmanager
def tampered_release(fleet: Fleet, n: int, folder: Path) -> Iterator[None]:
    """Change one byte of a release's server; no process runs it."""
    program = f"{folder}/bin/llama-server"
    fleet.on(
        n,
        f"cp -a {program} {program}{_SAVED} &&"
        f" printf X | dd of={program} bs=1 seek=4096 conv=notrunc status=none",
    )
    try:
        yield
    finally:
        fleet.on(n, _RESTORE)


def restart_plainly(fleet: Fleet, n: int, generation: str) -> None:
    """The usual way without Corral: replace the unit and restart it. No gate, no revert."""
    staged = f"{FOLDER}/generations/{generation}/unit"
    put = f"cp {staged} /etc/systemd/system/{UNIT} && systemctl daemon-reload"
    fleet.on(n, f"{put} && systemctl restart --no-block {UNIT}")


def _send(fleet: Fleet, n: int, file: Path, path: str) -> None:
    argv = ssh.command(fleet.layout, n, f"cat > {path}")
    subprocess.run(argv, input=file.read_bytes(), check=True, capture_output=True)
