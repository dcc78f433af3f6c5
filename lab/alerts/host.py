"""The host of the alerts: a server with a stand-in GPU, its Prometheus, and a disk of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab import cgroups, gpus
from lab.alerts import pace
from lab.alerts.prometheus import Prometheus
from lab.chaos.fleet import FOLDER, UNIT, Fleet
from lab.chaos.wanted import Keys
from lab.commands import run
from lab.descriptions import A100_40GB
from lab.layout import Layout

N = 1
# Its gate measures tokens/s, which become the baseline.
BASE: Keys = {"profile": "tiny-chaos-speed", "activation": "in-place"}
DISK, DISK_MIB = "/srv/alerts", 256
CARD = "/etc/corral-lab/gpus.json"
# GPU memory that the stand-in reports for each server, and what the stored plan predicts.
HELD_MIB, PREDICTED_MIB = 518, 600
_GPU = {"name": A100_40GB.name, "count": 1, "compute_capability": A100_40GB.compute_capability}
_PROMETHEUS: Keys = {"gpus": _GPU, "backend": "cpu", "monitoring": {"prometheus": {}}}
_PLAN_FOR_A_GPU = """
import json, pathlib
path = pathlib.Path("{path}")
plan = json.loads(path.read_text())
need = dict(weights_mib={mib}, kv_mib=0, compute_mib=0, runtime_mib=0)
plan.update(uses_gpu=True, need=dict(plan["need"], gpus=[need], unknown=""))
path.write_text(json.dumps(plan, indent=2, sort_keys=True))
"""
# Other work of this machine takes no processor time from the server, so that it is as fast as its
# baseline says. A policy of the process, and not of its unit: nothing drifts.
_FIRST = f"chrt --all-tasks --fifo --pid 5 $(systemctl show {UNIT} -P MainPID)"


@dataclass(frozen=True)
class Watched:
    """A fleet of one server that watches itself; ``times``: how much faster than in production."""

    fleet: Fleet
    times: int

    @classmethod
    def make(cls, purpose: str, times: int) -> Watched:
        """Boot, deploy and prepare the host."""
        fleet = Fleet.make(
            servers=1, gateway=False, purpose=f"alerts-{purpose}", hosts=lambda _: {N: _PROMETHEUS}
        )
        pace.apply(fleet.checkout.path, times)
        watched = cls(fleet, times)
        watched.on(gpus.writing([gpus.nvidia_smi(), *gpus.cards((A100_40GB,)), *_module()]))
        watched.deploy(BASE)
        mount_disk(fleet.layout, N)
        return watched

    @property
    def prometheus(self) -> Prometheus:
        """Its Prometheus."""
        return Prometheus(self.fleet.layout, N, pace.SCRAPE_SECONDS / self.times)

    def on(self, script: str) -> str:
        """Output of a script on the host, by plain ssh; it must succeed."""
        return self.fleet.on(N, script)

    def seconds(self, shipped: float) -> float:
        """So many seconds of production, in this lab."""
        return shipped / self.times

    def deploy(self, keys: Keys) -> None:
        """Deploy this state of the instance; exits the program if that fails."""
        self.fleet.want(keys)
        done = self.fleet.clone.deploy()
        if done.code != 0:
            raise SystemExit(done.text[-4000:])
        self.on(planning_for_a_gpu(f"{FOLDER}/current/plan.json"))
        self.first()

    def first(self) -> None:
        """Let the server run before other work of this machine."""
        self.on(_FIRST)

    @contextmanager
    def card(self, gpu: Keys | None = None, *, held_mib: int | None = HELD_MIB) -> Iterator[None]:
        """The stand-in GPU answers otherwise; ``held_mib``: of each server, None for no process."""
        before = self.on(f"cat {CARD}")
        document = json.loads(before)
        document["gpus"][0].update(gpu or {})
        app = {"cmdline_contains": "llama-server", "used_memory_mib": held_mib}
        document["apps"] = [app] if held_mib is not None else []
        self.on(gpus.writing([gpus.File(CARD[1:], json.dumps(document, indent=1) + "\n")]))
        try:
            yield
        finally:
            self.on(gpus.writing([gpus.File(CARD[1:], f"{before}\n")]))


def planning_for_a_gpu(path: str) -> str:
    """A script that gives a stored plan figures of a GPU: the lab's engines are for the CPU."""
    program = _PLAN_FOR_A_GPU.format(path=path, mib=PREDICTED_MIB)
    return f"python3 - <<'END'\n{program}\nEND"


def _module() -> list[gpus.File]:
    return gpus.module(A100_40GB.driver_version)


def mount_disk(layout: Layout, n: int) -> None:
    """Give a host a small disk of its own: the rest of its files are an overlay on this machine's.

    The bind mount of the compiler's cache goes: it is this machine's disk, which others fill.
    """
    image = layout.state / f"disk-{n}.ext4"
    with image.open("wb") as file:
        file.truncate(DISK_MIB << 20)
    run(["mkfs.ext4", "-q", "-F", image], where=str(image))
    device = run(["losetup", "--find", "--show", image], where="losetup").strip()
    major, minor = (int(part, 16) for part in _stat(device))
    script = (
        f"umount /var/cache/corral/ccache && mknod {device} b {major} {minor} && "
        f"mkdir -p {DISK} && mount {device} {DISK} && rm {device}"
    )
    enter = ["nsenter", "--mount", "--target", str(_init(layout, n)), "--", "sh", "-c", script]
    run(enter, where=layout.host_name(n))
    # It is freed with its last mount.
    run(["losetup", "--detach", device], where=device)


def _stat(device: str) -> list[str]:
    return run(["stat", "--format=%t %T", device], where=device).split()


def _init(layout: Layout, n: int) -> int:
    """The host's process 1, as this machine numbers it."""
    for pid in cgroups.members(layout.cgroup(n)):
        found = _status(pid).partition("NSpid:")[2].partition("\n")[0].split()
        if found[1:] == ["1"]:
            return pid
    raise SystemExit(f"{layout.host_name(n)} has no process 1")


def _status(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return ""


def load_average() -> float:
    """Of this machine, of the last minute."""
    return os.getloadavg()[0]
