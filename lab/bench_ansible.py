"""`make bench-ansible`: a deploy that changes nothing beside the same checks by Ansible.

Both run in turns, over the same lab hosts, in a copy of the checkout with a lab of its own. Ansible
pipelines its modules, keeps its connections and works on all hosts at once. It is installed into a
virtual environment in the lab's cache, outside the checkout.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from lab import ssh
from lab.ansible_checks import playbook
from lab.layout import Layout
from lab.scratch_checkout import ScratchCheckout

_ANSIBLE = "ansible-core>=2.19,<2.20"
_INVENTORY = "inventories/lab.py"
_RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.M)


@dataclass(frozen=True)
class Times:
    """Seconds of each run, in the order of the runs."""

    corral: tuple[float, ...]
    ansible: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """How many times faster Corral is, by the medians."""
        return statistics.median(self.ansible) / statistics.median(self.corral)


@click.command()
@click.option("--hosts", "counts", type=click.IntRange(1, 50), multiple=True, default=(1, 3))
@click.option("--runs", type=click.IntRange(1, 50), default=5, show_default=True)
def main(counts: tuple[int, ...], runs: int) -> None:
    """Measure on so many lab hosts; prints medians and their ratio."""
    table = Table("hosts", "Corral (s)", "Ansible (s)", "Ansible / Corral")
    checkout = ScratchCheckout.make("ansible")
    ansible = _installed(checkout.layout)
    # Of an earlier run that was killed.
    checkout.run("corral", "lab", "down")
    try:
        for count in sorted(set(counts)):
            row = _row(checkout, ansible, count, runs)
            # At once: a failure of the next must not lose it.
            click.echo(" | ".join(row))
            table.add_row(*row)
    finally:
        checkout.remove()
    Console(width=100).print(table)


def _row(checkout: ScratchCheckout, ansible: Path, count: int, runs: int) -> tuple[str, ...]:
    checkout.use_cached_releases()
    checkout.run("corral", "lab", "up", "--hosts", str(count))
    times = _measure(checkout, ansible, count, runs)
    return str(count), _shown(times.corral), _shown(times.ansible), f"{times.ratio:.1f}"


def _installed(layout: Layout) -> Path:
    """The program ansible-playbook."""
    folder = layout.cache / "ansible"
    program = folder / "bin" / "ansible-playbook"
    if not program.exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(folder / "bin" / "pip"), "install", "-q", _ANSIBLE], check=True)
    return program


def _measure(checkout: ScratchCheckout, ansible: Path, count: int, runs: int) -> Times:
    names = [checkout.layout.host_name(n) for n in range(1, count + 1)]
    # The first deploy provisions, the second fills caches, as the first check does.
    _deploy(checkout)
    _deploy(checkout)
    command = _ansible_command(checkout, ansible, names)
    environment = _ansible_environment(checkout.layout, ansible)

    def check() -> None:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        _refuse_changes(done, names)

    check()
    pairs = [(_seconds(lambda: _deploy(checkout)), _seconds(check)) for _ in range(runs)]
    return Times(tuple(one for one, _ in pairs), tuple(other for _, other in pairs))


def _deploy(checkout: ScratchCheckout) -> None:
    checkout.run("pyinfra", _INVENTORY, "deploy.py", "-y")


def _ansible_command(checkout: ScratchCheckout, ansible: Path, names: Sequence[str]) -> list[str]:
    """The command that checks these hosts; its playbook is written from their plans."""
    plans = [
        json.loads(checkout.run("corral", "plan", name, "-i", _INVENTORY, "--json").strip())
        for name in names
    ]
    sha256 = {plan["host"]: _digests(checkout.layout, n, plan) for n, plan in enumerate(plans, 1)}
    document = playbook(plans, keys=checkout.layout.keys, sha256=sha256)
    path = checkout.path / "checks.json"
    path.write_text(json.dumps(document, indent=1))
    inventory = checkout.path / "hosts.ini"
    inventory.write_text("".join(f"{name}\n" for name in names))
    return [str(ansible), "-i", str(inventory), str(path)]


def _digests(layout: Layout, n: int, plan: Mapping[str, Any]) -> dict[str, str]:
    """Digests of the helper and of the key files on host n, which a deploy has just proved."""
    paths = [plan["paths"]["helper"], *(one["key_path"] for one in plan["instances"])]
    lines = ssh.run_on(layout, n, "sha256sum", *paths).splitlines()
    return {path: digest for digest, path in (line.split() for line in lines)}


def _ansible_environment(layout: Layout, ansible: Path) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    return own | {
        "ANSIBLE_PIPELINING": "1",
        "ANSIBLE_FORKS": "50",
        "ANSIBLE_SSH_ARGS": f"-F {layout.ssh_config} -o ControlMaster=auto -o ControlPersist=60s",
        "ANSIBLE_HOME": str(ansible.parents[1] / "home"),
        "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3",
        "ANSIBLE_NOCOLOR": "1",
        "LC_ALL": "C.UTF-8",
    }


def _refuse_changes(done: subprocess.CompletedProcess[str], names: Sequence[str]) -> None:
    """Exits unless every host was checked, and nothing failed or changed."""
    found = {name: [int(n) for n in rest] for name, *rest in _RECAP.findall(done.stdout)}
    good = all(found.get(name, [0, 1])[1:] == [0, 0, 0] for name in names)
    if done.returncode != 0 or not good:
        raise SystemExit(done.stdout + done.stderr)


def _shown(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.1f} ({min(seconds):.1f}-{max(seconds):.1f})"


def _seconds(work: Callable[[], None]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


if __name__ == "__main__":
    main()
