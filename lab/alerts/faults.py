"""Real faults of a lab host, one or more for each alert; each repairs the host at its end."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from lab.alerts.clients import clients
from lab.alerts.host import BASE, DISK, DISK_MIB, PREDICTED_MIB, Watched
from lab.chaos.chores import NEW_QUANT
from lab.chaos.fleet import UNIT
from lab.chaos.play import OLD
from lab.gpus import File, writing

Fault = Callable[[Watched], AbstractContextManager[None]]
_LOG = "/etc/corral-lab/kernel.log"
_LIBRARY = "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so"
_UNIT_FILE = f"/etc/systemd/system/{UNIT}"
_DAILY = "systemctl start corral_daily.service"
_XID = "9.0 lab kernel: NVRM: Xid (PCI:0000:3b:00): 79, pid=1, GPU has fallen off the bus."
# A server runs for this share of its time; a short request of the tiny model takes several periods.
_SHARE, _PERIOD_SECONDS = 0.1, 0.02
_SLOW = f"""
import os, signal, subprocess, time
shown = subprocess.run(["systemctl", "show", "{UNIT}", "-P", "MainPID"], capture_output=True)
pid = int(shown.stdout)
try:
    while True:
        os.kill(pid, signal.SIGSTOP)
        time.sleep({_PERIOD_SECONDS * (1 - _SHARE):g})
        os.kill(pid, signal.SIGCONT)
        time.sleep({_PERIOD_SECONDS * _SHARE:g})
except ProcessLookupError:
    pass
"""


@dataclass(frozen=True)
class Cause:
    """A fault that makes an alert fire.

    + fault: as a table shows it; + limit_seconds: of production, until the alert must fire
    + resolved_seconds: of production, after the repair
    """

    name: str
    alert: str
    fault: str
    make: Fault
    limit_seconds: int = 1800
    resolved_seconds: int = 1800


@contextmanager
def _stopped(watched: Watched) -> Iterator[None]:
    watched.on(f"systemctl stop {UNIT}")
    try:
        yield
    finally:
        watched.on(f"systemctl start {UNIT}")
        watched.first()


@contextmanager
def _slow(watched: Watched) -> Iterator[None]:
    watched.on(
        "systemd-run --quiet --collect --unit=alerts-slow chrt --fifo 6 "
        f"python3 -c {shlex.quote(_SLOW)}"
    )
    try:
        yield
    finally:
        watched.on(f"systemctl stop alerts-slow; kill -CONT $(systemctl show {UNIT} -P MainPID)")


def _fallback(watched: Watched) -> AbstractContextManager[None]:
    return watched.card(held_mib=None)


def _above(watched: Watched) -> AbstractContextManager[None]:
    return watched.card(held_mib=PREDICTED_MIB + 100)


@contextmanager
def _xid(watched: Watched) -> Iterator[None]:
    watched.on(f"cp {_LOG} {_LOG}.before && echo '{_XID}' >> {_LOG}")
    try:
        yield
    finally:
        # The log of the next boot does not have it. The alert ends an hour after the error.
        watched.on(f"mv {_LOG}.before {_LOG}")


def _hot(watched: Watched) -> AbstractContextManager[None]:
    return watched.card({"clocks_throttle_reasons.active": "0x0000000000000040"})


def _ecc(watched: Watched) -> AbstractContextManager[None]:
    return watched.card({"ecc.errors.uncorrected.volatile.total": 2})


def _queue(watched: Watched) -> AbstractContextManager[None]:
    body = {"prompt": "Count.", "n_predict": 1500, "ignore_eos": True}
    return clients(watched, "alerts-queue", body, count=8, pause_seconds=0)


def _long(watched: Watched) -> AbstractContextManager[None]:
    """One conversation that fills its slot, with a pause after each answer."""
    body = {"prompt": [7] * 1980, "n_predict": 60, "ignore_eos": True, "cache_prompt": False}
    return clients(watched, "alerts-long", body, count=1, pause_seconds=0.5)


@contextmanager
def _filling(watched: Watched) -> Iterator[None]:
    """A log that grows on a disk of which three quarters are used."""
    grow = f"for n in $(seq {DISK_MIB}); do fallocate -o ${{n}}M -l 1M {DISK}/log; sleep 3; done"
    first = f"fallocate -l {DISK_MIB * 75 // 100}M {DISK}/grown"
    watched.on(
        f"{first}; systemd-run --quiet --collect --unit=alerts-fill sh -c {shlex.quote(grow)}"
    )
    try:
        yield
    finally:
        watched.on(f"systemctl stop alerts-fill; rm -f {DISK}/log {DISK}/grown")


@contextmanager
def _library(watched: Watched) -> Iterator[None]:
    """Packages of the driver are upgraded under its loaded module."""
    watched.on(f"touch {_LIBRARY}.580.173.02 && ln -s {_LIBRARY}.580.173.02 {_LIBRARY}.1")
    try:
        yield
    finally:
        watched.on(f"rm {_LIBRARY}.1 {_LIBRARY}.580.173.02")


@contextmanager
def _edited_unit(watched: Watched) -> Iterator[None]:
    """The daily check finds an edited unit; after the repair nobody starts that check again."""
    before = watched.on(f"cat {_UNIT_FILE}")
    watched.on(f"echo '# by hand' >> {_UNIT_FILE}; {_DAILY}")
    try:
        yield
    finally:
        repaired = writing([File(_UNIT_FILE[1:], f"{before}\n")])
        watched.on(f"{repaired}\nsystemctl daemon-reload")


@contextmanager
def _killed_rollout(watched: Watched) -> Iterator[None]:
    """The operator's rollout is killed when everything is staged; then a deploy goes on."""
    # Its gate measures no tokens/s: by now this machine may be busier than the baseline knew it.
    changed = {**BASE, **NEW_QUANT, "profile": OLD["profile"]}
    watched.fleet.want(changed)
    with watched.fleet.clone.asking_rollout() as (rollout, _):
        if rollout.process.poll() is not None:
            raise SystemExit(rollout.text[-4000:])
        os.killpg(rollout.process.pid, signal.SIGKILL)
        rollout.process.wait()
    yield
    watched.deploy(changed)


CAUSES = (
    Cause("stopped", "CorralDown", "the server is stopped", _stopped),
    Cause("fallback", "CorralServesFromCpu", "the server holds no GPU memory", _fallback),
    Cause("above", "CorralMemoryAbovePrediction", "it holds 17% more than predicted", _above),
    Cause("hot", "CorralThrottled", "the GPU slows down by heat", _hot),
    Cause("queue", "CorralQueue", "8 clients at 2 slots", _queue),
    Cause("long", "CorralContextFull", "a conversation fills its slot", _long),
    Cause("library", "CorralDriverDiffers", "the driver's library is upgraded", _library),
    Cause("edited", "CorralDrift", "a unit is edited by hand", _edited_unit),
    Cause("slow", "CorralSlow", "the server gets a tenth of its processor time", _slow),
    Cause("filling", "CorralDiskFull", "a file grows", _filling, limit_seconds=7200),
    Cause("xid", "CorralGpuErrors", "an Xid in the kernel log", _xid, resolved_seconds=7200),
    Cause("ecc", "CorralGpuErrors", "an uncorrected ECC error", _ecc, resolved_seconds=7200),
    Cause("killed", "CorralRolloutStopped", "a rollout is killed after staging",
          _killed_rollout, limit_seconds=5400),
)  # fmt: skip
