"""`make bench`: times of deploys over lab hosts, remote commands per host, costs of builds, swarms.

Prints three tables; `python -m lab.bench swarm` the last one alone. A lab that is up is removed
first, and the measured one afterwards.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from lab import bench_builds, bench_swarm, lifecycle, ssh
from lab.layout import Layout, this_lab

_REPEATS = 3
_MEMORY_BYTES_A_HOST = 1024**3

# Removes all that a deploy made, except for packages, helper and engine.
_FORGET = (
    "systemctl stop 'corral-tiny*.service'; rm -f /etc/systemd/system/corral-tiny*.service;"
    " systemctl daemon-reload; rm -rf /etc/corral/keys /var/lib/corral/models"
    " /var/lib/corral/models-root /var/lib/corral/instances /var/lib/corral/jobs"
)


def main() -> None:
    """Measure 1, 3 and 10 hosts, or as many as fit into this machine's memory; then builds."""
    if sys.argv[1:] == ["swarm"]:
        Console(width=100).print(bench_swarm.table(click.echo))
        return
    fit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _MEMORY_BYTES_A_HOST
    table = Table("hosts", "first deploy, engine ready (s)", "no change (s)", "commands a host")
    layout = this_lab()
    lifecycle.down(layout, click.echo)
    for count in sorted({min(n, fit) for n in (1, 3, 10)}):
        click.echo(f"--- {count} hosts")
        table.add_row(*_measure(layout, count))
    Console(width=100).print(table)
    lifecycle.down(layout, click.echo)
    Console(width=100).print(bench_builds.table(click.echo))
    Console(width=100).print(bench_swarm.table(click.echo))


def _measure(layout: Layout, count: int) -> tuple[str, str, str, str]:
    lifecycle.up(layout, count, click.echo)
    _deploy()
    for n in range(1, count + 1):
        subprocess.run([*ssh.command(layout, n), _FORGET], check=True, capture_output=True)
    first = _seconds(_deploy)
    again = [_seconds(_deploy) for _ in range(_REPEATS)]
    commands = _deploy("-vv").count(">>> ")
    shown = f"{statistics.median(again):.1f} ({min(again):.1f}-{max(again):.1f})"
    return str(count), f"{first:.1f}", shown, f"{commands / count:.0f}"


def _deploy(*flags: str) -> str:
    pyinfra = str(Path(sys.executable).with_name("pyinfra"))
    command = [pyinfra, "inventories/lab.py", "deploy.py", "-y", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stdout + done.stderr)
    return done.stdout + done.stderr


def _seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


if __name__ == "__main__":
    main()
