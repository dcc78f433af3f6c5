"""A file to eight hosts behind shaped links: through a swarm, from the hub alone, and by rsync."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from corral_shared.names import RECEIPT
from rich.table import Table

from corral.project import helper_package, project_root
from corral.remote.helper_archive import archive
from lab import cgroups, lifecycle, network, ssh
from lab.hub_store import Store
from lab.layout import Layout, this_lab

HOSTS = 8
MIB = 1024**2
# Between measurements the file is given to the first host.
_FAST_MBIT = 10_000
REPOSITORY = "corral-lab/Swarm-GGUF"
HELPER = "/usr/local/lib/corral/corral_host.pyz"
STATE = "/var/lib/corral"
_LIMIT_SECONDS = 1800
_POLL_SECONDS = 0.5
_SENT = re.compile(r"GET /cdn/\S*w\.gguf .* bytes=(\d+)")
_RSYNC = f"""pid file = /run/rsyncd.pid
[m]
path = {STATE}/models
read only = yes
uid = root
use chroot = no
"""
_WRITE_RECEIPT = """
import json, os, sys
path, sha256, end = sys.argv[1:]
about = os.stat(path)
known = {"size_bytes": about.st_size, "mtime_ns": about.st_mtime_ns, "url": ""}
json.dump({"sha256": sha256, **known}, open(path + end, "w"))
"""
_FORGET = f"rm -rf {STATE}; mkdir -p {STATE}"


@dataclass(frozen=True)
class Trial:
    """A file of some size, and the rate of each link; ``all_ways``: also those without a swarm."""

    mbit: int
    size_bytes: int
    all_ways: bool


# A copy of seconds, in which each second counts; and one of minutes, as of real weights.
TRIALS = (Trial(100, 256 * MIB, all_ways=True), Trial(20, 512 * MIB, all_ways=False))


@dataclass(frozen=True)
class Measured:
    """One way to bring the file to hosts; ``origin_bytes``: what the hub sent."""

    way: str
    seconds: float
    origin_bytes: int
    cpu_seconds: float
    receivers: int

    def row(self, trial: Trial, copy_seconds: float) -> tuple[str, ...]:
        """Cells of the table; ``copy_seconds``: of one copy over the first host's link."""
        received_gb = trial.size_bytes * self.receivers / 1e9
        return (
            f"{trial.mbit} Mbit/s", f"{trial.size_bytes // MIB} MiB", self.way,
            f"{self.seconds:.0f}", f"{self.seconds / copy_seconds:.2f}",
            f"{self.origin_bytes / trial.size_bytes:.2f}", f"{self.cpu_seconds / received_gb:.1f}",
        )  # fmt: skip


def table(report: Callable[[str], None]) -> Table:
    """Measure all ways on the same hosts; a lab that is up is removed first and afterwards."""
    layout = this_lab()
    lifecycle.down(layout, report)
    found = Table(
        "links", "file", "way", "wall (s)", "of one copy", "origin / size", "CPU s a GB received"
    )
    try:
        lifecycle.up(layout, HOSTS, report, provisioned=True)
        for trial in TRIALS:
            one, *others = _Bench(layout, report, trial).all()
            for measured in (one, *others):
                row = measured.row(trial, one.seconds)
                report(" ".join(row))
                found.add_row(*row)
    finally:
        lifecycle.down(layout, report)
    return found


class _Bench:
    def __init__(self, layout: Layout, report: Callable[[str], None], trial: Trial) -> None:
        self.layout, self.report, self.trial = layout, report, trial
        self.file = layout.hub / "repos" / REPOSITORY / "main" / "w.gguf"
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.sha256 = _write(self.file, trial.size_bytes)
        self.commit = Store(layout.hub).snapshot(REPOSITORY, "main").commit
        self.path = f"{STATE}/models/{REPOSITORY}/{self.commit}/w.gguf"
        self._shape(_FAST_MBIT)
        program = archive(helper_package(project_root()))
        for n in self.numbers:
            self._on(n, f"mkdir -p {Path(HELPER).parent}; base64 -d >{HELPER}", program)
        self._on_all("apt-get -qq update && apt-get -qq install -y rsync >/dev/null")

    def _shape(self, mbit: int) -> None:
        network.shape(self.layout, self.numbers, mbit=mbit)

    @property
    def numbers(self) -> range:
        return range(1, HOSTS + 1)

    def all(self) -> Sequence[Measured]:
        """One copy over one link, and all ways, one after the other."""
        others = self.numbers[1:]
        found = [
            self._measure("rsync from the first host to one", partial(self._rsync, [2]), 1, [2]),
            self._measure("swarm, the first host has it", self._jobs, 1, others),
        ]
        if self.trial.all_ways:
            found += [
                self._measure("swarm, nobody has the file", self._jobs, None, self.numbers),
                self._measure(
                    "rsync from the first host to all", partial(self._rsync, others), 1, others
                ),
                self._measure("without swarm, all from the hub", self._fetches, None, self.numbers),
            ]
        return found

    def _measure(
        self, way: str, work: Callable[[], None], owner: int | None, receivers: Sequence[int]
    ) -> Measured:
        self._on_all(_FORGET)
        if owner:
            self._shape(_FAST_MBIT)
            self._give(owner)
        self._shape(self.trial.mbit)
        log = self.layout.log / "hub.log"
        before, cpu, began = len(log.read_text()), self._cpu_seconds(), time.monotonic()
        self.report(f"--- {way}")
        work()
        seconds, cpu = time.monotonic() - began, self._cpu_seconds() - cpu
        self._assert_whole(receivers)
        sent = sum(int(found[1]) for found in _SENT.finditer(log.read_text()[before:]))
        return Measured(way, seconds, sent, cpu, len(receivers))

    def _jobs(self) -> None:
        """Until the last host has the file; members leave a moment later."""
        names = [self.layout.host_name(n) for n in self.numbers]
        peers = [
            {"name": name, "address": str(self.layout.address(n)), "port": 6880}
            for name, n in zip(names, self.numbers, strict=True)
        ]
        limits = {"from_hub": 1, "upload_bytes_per_second": 0, "upload_seconds": 3600}
        shared = {"peers": peers, "expected": names, "connections": 40, **limits}
        self._run("swarm", lambda n: {"swarm": {**shared, "name": self.layout.host_name(n)}})

    def _fetches(self) -> None:
        self._run("fetch", lambda _: {})

    def _run(self, kind: str, more: Callable[[int], dict[str, Any]]) -> None:
        shard = {
            "url": f"{self.layout.hub_url}/{REPOSITORY}/resolve/{self.commit}/w.gguf",
            "revision": self.commit, "path": self.path, "size_bytes": self.trial.size_bytes,
            "sha256": self.sha256, "kind": "weights", "gated": False,
        }  # fmt: skip

        def start(n: int) -> None:
            held = [shard] if self._has(n) else []
            spec = {
                "paths": {"state": STATE}, "shards": [] if held else [shard], "held": held,
                **more(n),
            }  # fmt: skip
            job = {"kind": kind, "spec": spec, "by": "bench", "at": ""}
            self._on(n, f"python3 -I {HELPER} start fetch", json.dumps(job).encode())

        with ThreadPoolExecutor(HOSTS) as pool:
            list(pool.map(start, self.numbers))
        self._wait()
        self._on_all("while systemctl is-active -q corral-job-fetch; do sleep 1; done")

    def _rsync(self, receivers: Sequence[int]) -> None:
        """To all of them at once, from a daemon: no encryption."""
        start = "cat >/run/rsync.conf; rsync --daemon --config=/run/rsync.conf"
        self._on(1, start, _RSYNC.encode())
        source = f"rsync://{self.layout.address(1)}/m/"
        work = f"rsync -a --exclude .staging {source} {STATE}/models/"
        with ThreadPoolExecutor(HOSTS) as pool:
            list(pool.map(lambda n: self._on(n, work), receivers))
        self._on(1, "kill $(cat /run/rsyncd.pid)")

    def _wait(self) -> None:
        """Until every host has a receipt."""
        until = time.monotonic() + _LIMIT_SECONDS
        left = set(self.numbers)
        while left:
            left = {n for n in left if not self._has(n)}
            if time.monotonic() > until:
                raise SystemExit(f"hosts {sorted(left)} never had the file")
            time.sleep(_POLL_SECONDS)

    def _has(self, n: int) -> bool:
        """By its disk, which is a folder here: asking a host would cost it CPU."""
        own = self.layout.disk(n) / "own"
        return (own / f"{self.path}{RECEIPT}".lstrip("/")).exists()

    def _give(self, n: int) -> None:
        folder = self.path.rpartition("/")[0]
        self._on(n, f"mkdir -p {folder}; cat >{self.path}", self.file.read_bytes())
        written = ["python3", "-c", _WRITE_RECEIPT, self.path, self.sha256, RECEIPT]
        self._on(n, shlex.join(written))

    def _assert_whole(self, receivers: Sequence[int]) -> None:
        for n in receivers:
            digest = self._on(n, f"sha256sum {self.path}").split()[0]
            if digest != self.sha256:
                raise SystemExit(f"{self.layout.host_name(n)} has other bytes")

    def _cpu_seconds(self) -> float:
        """CPU time of all processes of all hosts, also of those that have ended."""
        return sum(_cpu_seconds(self.layout, n) for n in self.numbers)

    def _on_all(self, script: str) -> None:
        with ThreadPoolExecutor(HOSTS) as pool:
            list(pool.map(lambda n: self._on(n, script), self.numbers))

    def _on(self, n: int, script: str, sent: bytes = b"") -> str:
        command = ssh.command(self.layout, n, script)
        text = base64.b64encode(sent) if "base64 -d" in script else sent
        done = subprocess.run(command, input=text, capture_output=True, check=False)
        if done.returncode:
            raise SystemExit(f"{self.layout.host_name(n)}: {script}: {done.stderr.decode()}")
        return done.stdout.decode()


def _write(path: Path, size_bytes: int) -> str:
    """Write the file, of bytes that do not compress; returns its sha256."""
    block, digest = bytearray(os.urandom(MIB)), hashlib.sha256()
    with path.open("wb") as file:
        for number in range(size_bytes // MIB):
            block[:8] = number.to_bytes(8, "big")
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def _cpu_seconds(layout: Layout, n: int) -> float:
    """CPU time of the processes of a host; that of those that ended is counted by their parents."""
    ticks = 0
    for pid in cgroups.members(layout.cgroup(n)):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")
