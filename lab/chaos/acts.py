"""Acts of scenarios: interfere with a running rollout, or run another command than a rollout."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lab import hosts, ssh
from lab.chaos import faults, phases
from lab.chaos.fleet import NAME, UNIT, Fleet
from lab.chaos.operators import INVENTORY, Done, ended
from lab.chaos.play import OLD, Fault, Stage
from lab.layout import Layout

GPU_HOST = 3
# Longer than the controller's time to confirm.
CUT_SECONDS = OLD["confirm_seconds"] + 10
READY_SECONDS = 15


def at_phase(n: int, phase: str, act: Callable[[Stage], None]) -> Fault:
    """A fault that is injected when server n's activation reaches a phase."""

    @contextmanager
    def make(stage: Stage) -> Iterator[None]:
        def strike() -> None:
            stage.strike()
            act(stage)

        with phases.at(stage.fleet, n, phase, strike):
            yield

    return make


def kill_controller(n: int, phase: str) -> Fault:
    """Kill the operator's command, with all its connections."""

    return at_phase(n, phase, _kill)


def _kill(stage: Stage) -> None:
    os.killpg(stage.operators[-1].process.pid, signal.SIGKILL)


def kill_controller_at(line: str) -> Fault:
    """Kill the command when it has printed a line: between the switches of hosts."""

    @contextmanager
    def make(stage: Stage) -> Iterator[None]:
        over = threading.Event()

        def wait() -> str:
            while not over.wait(0.02):
                begun = stage.operators[-1:]
                if begun and line in begun[0].text:
                    stage.strike()
                    _kill(stage)
                    return ""
            return f"never printed {line!r}"

        with phases.meanwhile(wait, over.set, "the command"):
            yield

    return make


def reboot(n: int, phase: str) -> Fault:
    """An orderly reboot, requested on the host itself."""
    return at_phase(n, phase, lambda stage: _reboot(stage.fleet, n))


def _reboot(fleet: Fleet, n: int) -> None:
    fleet.try_on(n, "systemctl reboot")


def cut_off(n: int, phase: str) -> Fault:
    """Disconnect a host somewhere in the network for a while."""

    def switch(layout: Layout, whole: bool) -> None:
        hosts.joined(layout, n, to_network=whole)

    return _for_a_while(n, phase, switch)


def pull_cable(n: int, phase: str) -> Fault:
    """Pull the host's own cable for a while: it loses its address, too."""

    def switch(layout: Layout, whole: bool) -> None:
        hosts.link(layout, n, up=whole)

    return _for_a_while(n, phase, switch)


def _for_a_while(n: int, phase: str, switch: Callable[[Layout, bool], None]) -> Fault:
    @contextmanager
    def make(stage: Stage) -> Iterator[None]:
        layout = stage.fleet.layout
        fixed = threading.Timer(CUT_SECONDS, lambda: switch(layout, True))

        def cut() -> None:
            stage.strike()
            switch(layout, False)
            fixed.start()

        with phases.at(stage.fleet, n, phase, cut):
            yield
        fixed.join()

    return make


def power_loss(n: int) -> Fault:
    """Cut the host's power as soon as the new unit is renamed into place, and boot it again."""

    @contextmanager
    def make(stage: Stage) -> Iterator[None]:
        fleet = stage.fleet

        def cut() -> None:
            renamed = f"until grep -q /F16/ /etc/systemd/system/{UNIT}; do sleep 0.001; done"
            fleet.try_on(n, renamed, seconds=60)
            stage.strike()
            hosts.power_cut(fleet.layout, n)
            hosts.boot(fleet.layout, n)

        with phases.at(fleet, n, "starting", cut):
            yield
        ssh.wait_until_booted(fleet.layout, n)

    return make


def host_down(n: int, watched: int, phase: str) -> Fault:
    """Cut the power of a host of a later wave during an earlier wave, until the end."""

    @contextmanager
    def make(stage: Stage) -> Iterator[None]:
        fleet = stage.fleet

        def cut() -> None:
            stage.strike()
            hosts.power_cut(fleet.layout, n)

        with phases.at(fleet, watched, phase, cut):
            yield
        hosts.boot(fleet.layout, n)
        ssh.wait_until_booted(fleet.layout, n)

    return make


def late(marker: str) -> Fault:
    """The server is ready only at the very end of its time limit."""

    @contextmanager
    def make(stage: Stage) -> Iterator[None]:
        stage.fleet.on(1, f"echo {READY_SECONDS} > /run/chaos-late-seconds")
        with faults.at_start(stage.fleet, 1, "late", marker):
            yield

    return make


def full_disk(marker: str) -> Fault:
    """See `faults.full_disk`."""
    return lambda stage: faults.full_disk(stage.fleet, 1, marker)


def moved_clock(marker: str) -> Fault:
    """See `faults.moved_clock`."""
    return lambda stage: faults.moved_clock(stage.fleet, 1, marker)


def stranger_on_gpu(marker: str) -> Fault:
    """See `faults.stranger_on_gpu`."""
    return lambda stage: faults.stranger_on_gpu(stage.fleet, GPU_HOST, marker)


@contextmanager
def stale_locks(stage: Stage) -> Iterator[None]:
    """See `faults.stale_locks`."""
    with faults.stale_locks(stage.fleet):
        yield


def two_at_once(stage: Stage) -> Done:
    """A second operator starts the same a moment later: refused, with the name of the first."""
    first = stage.begin()
    first.wait_for("staging")
    second = ended(stage.begin())
    if second.code == 0 or f"process {first.process.pid}" not in second.text:
        text = second.text[-500:]
        stage.problems.append(f"the second rollout was not refused naming the first: {text}")
    return ended(first)


def revert_to_tampered(stage: Stage) -> Done:
    """A good rollout, then a revert to a tampered release, which must be refused."""
    done = stage.change()
    release = Path(stage.old.argv[0]).parents[1]
    with faults.tampered_release(stage.fleet, 1, release):
        name = f"{stage.fleet.layout.host_name(1)}/{NAME}"
        reverted = stage.fleet.clone.corral("revert", name, "-i", INVENTORY)
    if reverted.code == 0:
        stage.problems.append("the revert was not refused")
    return done
