"""One control group a host, so that each host's systemd has a tree of its own.

nspawn with --keep-unit uses the group it is started in. Under systemd that is a scope with
delegation; elsewhere a child of the caller's own group, made here in the two hierarchies that
nspawn 252 uses: v2 and name=systemd. Source: systemd's "Control Group APIs and Delegation".
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from corral.errors import CorralError

_V2 = ""
_USED = (_V2, "name=systemd")
# Of a busy machine: the memory of a large server takes seconds to give back.
_KILL_TIMEOUT_SECONDS = 120


def under_systemd() -> bool:
    """Whether systemd is PID 1 here (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


def command_in(name: str) -> list[str]:
    """The prefix of a command line that runs the command in the control group of this name."""
    if under_systemd():
        scope = ["systemd-run", "--scope", "--quiet", "--collect", f"--unit={name}"]
        return [*scope, "--property=Delegate=yes", "--"]
    return [sys.executable, "-m", "lab.cgroups", name]


def kill(name: str) -> None:
    """Kill all processes in the groups whose name matches a pattern (fnmatch); remove the groups.

    There need be no such group.
    """
    deadline = time.monotonic() + _KILL_TIMEOUT_SECONDS
    while pids := members(name):
        if time.monotonic() > deadline:
            step = f"see `ps -o pid,stat,args {' '.join(map(str, sorted(pids)))}`"
            raise CorralError(name, f"processes {sorted(pids)} do not end", step)
        for pid in pids:
            _kill_process(pid)
        time.sleep(0.02)
    remove(name)


def members(name: str) -> set[int]:
    """Process ids in the groups whose name matches and below them."""
    # os.walk skips a group that is removed while it is listed; Path.rglob fails.
    folders = [below for folder in _find(name) for below, _, _ in os.walk(folder)]
    return {int(pid) for folder in folders for pid in _lines(Path(folder) / "cgroup.procs")}


def remove(name: str) -> None:
    """Remove the empty groups whose name matches from every hierarchy."""
    for folder in _find(name):
        for below, _, _ in os.walk(folder, topdown=False):
            _remove_folder(Path(below))


def _enter(name: str) -> None:
    for own in _own_folders():
        folder = own / name
        folder.mkdir(exist_ok=True)
        (folder / "cgroup.procs").write_text(str(os.getpid()))


def _own_folders() -> Iterator[Path]:
    """This process's folder in each used hierarchy."""
    mounts = _mounts()
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, hierarchy, path = line.split(":", 2)
        if hierarchy in mounts:
            root, mount = mounts[hierarchy]
            yield mount / Path(path).relative_to(root)


def _mounts() -> dict[str, tuple[Path, Path]]:
    """Used hierarchies as /proc/self/cgroup names them -> (root, mount point); proc(5)."""
    found: dict[str, tuple[Path, Path]] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        hierarchy = _hierarchy(kind, options.split(","))
        if hierarchy is not None:
            fields = before.split(" ")
            found.setdefault(hierarchy, (Path(fields[3]), Path(fields[4])))
    return found


def _hierarchy(kind: str, options: list[str]) -> str | None:
    if kind == "cgroup2":
        return _V2
    return next((name for name in _USED if kind == "cgroup" and name in options), None)


def _find(name: str) -> list[Path]:
    found = []
    for _, mount in _mounts().values():
        for folder, below, _ in os.walk(mount):
            matches = [child for child in below if fnmatch(child.removesuffix(".scope"), name)]
            found += [Path(folder) / match for match in matches]
            below[:] = [child for child in below if child not in matches]
    return found


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        # ENOENT or ENODEV: the group was removed while it was read.
        return []


def _kill_process(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _remove_folder(folder: Path) -> None:
    deadline = time.monotonic() + _KILL_TIMEOUT_SECONDS
    while folder.exists():
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            # EBUSY for a moment after its last process ended.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


if __name__ == "__main__":
    _enter(sys.argv[1])
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606  (a list, without a shell)
