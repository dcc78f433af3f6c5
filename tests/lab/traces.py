"""What a lab leaves on the controller, searched with the machine's own tools."""

from __future__ import annotations

import subprocess

from lab.layout import Layout


def traces(layout: Layout) -> dict[str, list[str]]:
    """Kind -> traces of this lab; kinds without any are left out."""
    name = layout.lab_id
    found = {
        "links": _lines(name, "ip", "-oneline", "link"),
        "packet rules": _lines(name, "nft", "list", "tables"),
        "control groups": _lines(name, "find", "/sys/fs/cgroup", "-name", f"*{name}*"),
        "processes": _lines(name, "ps", "-eww", "-o", "pid,args"),
        "mounts": _lines(name, "cat", "/proc/self/mountinfo"),
        "files": _lines(name, "find", str(layout.state_parent), "-maxdepth", "1"),
        "nspawn": _lines(name, "find", "/run/systemd/nspawn", "-name", f"*{name}*"),
    }
    return {kind: lines for kind, lines in found.items() if lines}


def running(pids: list[int]) -> list[int]:
    """The running ones of the processes, without zombies."""
    return [pid for pid in pids if _state(pid) not in ("", "Z")]


def _state(pid: int) -> str:
    done = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], check=False, capture_output=True, text=True
    )
    return done.stdout[:1]


def _lines(name: str, *command: str) -> list[str]:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.stdout or not done.stderr, done.stderr
    return [line for line in done.stdout.splitlines() if name in line]
