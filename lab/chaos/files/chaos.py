"""Inject a fault into one server, on its host: `chaos.py FAULT MARKER UNIT [PID]`.

A drop-in of the unit calls this before or after each start. Only the new generation is affected,
whose command line has MARKER in it. A lasting fault runs in a unit of its own, chaos-FAULT.
"""

from __future__ import annotations

import ctypes
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

Argv = list[str]
Fault = Callable[..., int]

SQUAT_SECONDS = 4
SHARE_SECONDS = 0.01
LATE_FILE = Path("/run/chaos-late-seconds")
SAVED = ".chaos-saved"
AARCH64 = b"\xb7\x00"
FULL = ("/var/lib/corral/instances", "/etc/systemd/system")
CLOCK_FILE = Path("/etc/chaos-clock-seconds")
PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207
WALL = 0x40000000


def main(fault: str, marker: str, unit: str, *pid: str) -> int:
    """Inject the fault if this start is of the new generation; returns the exit code."""
    shown = subprocess.run(
        ["systemctl", "show", unit, "--value", "--property=ExecStart"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    argv = shown.partition("argv[]=")[2].partition(" ;")[0].split()
    if marker not in " ".join(argv):
        return 0
    return FAULTS[fault](argv, *map(int, pid))


def value(argv: Argv, flag: str) -> str:
    return argv[argv.index(flag) + 1]


def dies(_: Argv) -> int:
    """The start fails at once."""
    return 1


def lasting(name: str) -> Fault:
    """A fault that runs beside the server, in a unit of its own."""

    def start(argv: Argv, *pid: int) -> int:
        command = [sys.executable, __file__, "--now", name, *map(str, pid), "--", *argv]
        unit = f"--unit=chaos-{name}-{time.monotonic_ns()}"
        subprocess.run(["systemd-run", "--quiet", "--collect", unit, *command], check=True)
        return 0

    return start


def hang(argv: Argv, pid: int) -> None:
    """The thread that computes stops for ever once the server is healthy; /health goes on."""
    wait_until_healthy(argv, pid)
    libc = ctypes.CDLL(None, use_errno=True)
    for request in (PTRACE_SEIZE, PTRACE_INTERRUPT):
        if libc.ptrace(request, pid, None, None) != 0:
            raise OSError(ctypes.get_errno(), f"ptrace {request:#x} of {pid}")
    # The tracer must wait for the thread's end, else its parent never learns of it.
    while not ended(os.waitpid(pid, WALL)[1]):
        pass


def ended(status: int) -> bool:
    """Whether a thread has ended, and not just stopped."""
    return os.WIFEXITED(status) or os.WIFSIGNALED(status)


def wait_until_healthy(argv: Argv, pid: int) -> None:
    while Path(f"/proc/{pid}").exists():
        link = http.client.HTTPConnection(value(argv, "--host"), int(value(argv, "--port")))
        try:
            link.request("GET", "/health")
            if link.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            link.close()
        time.sleep(0.002)


def slow(_: Argv, pid: int) -> None:
    """The server is stopped half of the time."""
    try:
        while True:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(SHARE_SECONDS)
            os.kill(pid, signal.SIGCONT)
            time.sleep(SHARE_SECONDS)
    except ProcessLookupError:
        return


def late(_: Argv, pid: int) -> None:
    """The server is stopped for as long as the file says, then continues."""
    os.kill(pid, signal.SIGSTOP)
    time.sleep(float(LATE_FILE.read_text()))
    os.kill(pid, signal.SIGCONT)


def squatted(argv: Argv) -> int:
    """Another process has the port when the server starts."""
    ready = Path(f"/run/chaos-squats-{value(argv, '--port')}")
    ready.unlink(missing_ok=True)
    lasting("squat")(argv)
    while not ready.exists():
        time.sleep(0.01)
    return 0


def squat(argv: Argv) -> None:
    port = int(value(argv, "--port"))
    with socket.create_server((value(argv, "--host"), port)):
        Path(f"/run/chaos-squats-{port}").touch()
        time.sleep(SQUAT_SECONDS)


def wrong_binary(argv: Argv) -> int:
    """Turn the program into one for another processor."""
    program = Path(argv[0])
    changed = bytearray(program.read_bytes())
    changed[18:20] = AARCH64
    save(program)
    program.write_bytes(changed)
    program.chmod(0o755)
    return 0


def missing_shard(argv: Argv) -> int:
    """Move the last file of weights away."""
    first = Path(value(argv, "--model"))
    save(sorted(first.parent.glob("*.gguf"))[-1])
    return 0


def save(path: Path) -> None:
    saved = Path(f"{path}{SAVED}")
    if not saved.exists():
        path.rename(saved)


def full_disk(_: Argv) -> int:
    """Fill the disk of generations and units."""
    for folder in FULL:
        with Path(folder, "chaos-full").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                continue
    return 0


def clock(_: Argv) -> int:
    """Move the wall clock of all processes of the host by an hour."""
    CLOCK_FILE.write_text("3600")
    return 0


NOW: dict[str, Callable[..., None]] = {"hang": hang, "slow": slow, "late": late, "squat": squat}
FAULTS: dict[str, Fault] = {
    "dies": dies, "hangs": lasting("hang"), "slow": lasting("slow"), "late": lasting("late"),
    "squatted": squatted, "wrong_binary": wrong_binary, "missing_shard": missing_shard,
    "full_disk": full_disk, "clock": clock,
}  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1] == "--now":
        before, argv = sys.argv[2 : sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1 :]
        sys.exit(NOW[before[0]](argv, *map(int, before[1:])))
    sys.exit(main(*sys.argv[1:]))
