"""Detached processes, identified by a record that a reused process id cannot match.

The new process itself writes the record just before it becomes the program, so the program never
runs without a record.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from corral.errors import CorralError
from corral.files import write_atomic
from lab.layout import ROOM

_START_TIMEOUT_SECONDS = 60
_STOP_TIMEOUT_SECONDS = 3


@dataclass(frozen=True)
class Record:
    """A process that was started; start_ticks is field 22 of /proc/<pid>/stat (proc(5))."""

    pid: int
    start_ticks: int
    boot_id: str
    argv: tuple[str, ...]


def start(name: str, argv: Sequence[str], *, run: Path, log: Path, cwd: Path) -> Record:
    """Start a program in its own session, with record run/<name>.json and log/<name>.log."""
    path = run / f"{name}.json"
    path.unlink(missing_ok=True)
    with (log / f"{name}.log").open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "lab.processes", str(path), *argv],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + _START_TIMEOUT_SECONDS
    while not path.exists():
        if child.poll() is not None or time.monotonic() > deadline:
            raise CorralError(name, "did not start", f"read {log / f'{name}.log'}")
        time.sleep(0.01)
    return read(path)


def read(path: Path) -> Record:
    """The record in this file."""
    fields = json.loads(path.read_text())
    return Record(fields["pid"], fields["start_ticks"], fields["boot_id"], tuple(fields["argv"]))


def recorded(run: Path) -> dict[str, Record]:
    """Every record in the folder, by name."""
    return {path.stem: read(path) for path in sorted(run.glob("*.json"))}


def alive(record: Record) -> bool:
    """Whether the recorded process runs, and not another one with its id. A zombie does not run."""
    return record.boot_id == _boot_id() and _start_ticks(record.pid) == record.start_ticks


def stop(record: Record, *, at_once: bool = False) -> None:
    """End the process and its group: SIGTERM first unless at_once, then SIGKILL."""
    signals = (signal.SIGKILL,) if at_once else (signal.SIGTERM, signal.SIGKILL)
    for number in signals:
        if not alive(record):
            return
        os.killpg(record.pid, number)
        _wait_for_end(record)
    if alive(record):
        what = f"process {record.pid} does not end"
        raise CorralError("the lab", what, f"look at `ps -o stat,wchan {record.pid}`")


def _wait_for_end(record: Record) -> None:
    deadline = time.monotonic() + _STOP_TIMEOUT_SECONDS
    while alive(record) and time.monotonic() < deadline:
        time.sleep(0.01)


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _start_ticks(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may contain anything; the fields after it begin with the state.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


def _become(path: Path, argv: list[str]) -> None:
    pid = os.getpid()
    ticks = _start_ticks(pid)
    if ticks is None:
        raise ProcessLookupError(pid)
    record = Record(pid, ticks, _boot_id(), tuple(argv))
    write_atomic(path, json.dumps(asdict(record), indent=1), next_step=ROOM)
    os.execvp(argv[0], argv)  # noqa: S606  (a list, without a shell)


if __name__ == "__main__":
    _become(Path(sys.argv[1]), sys.argv[2:])
