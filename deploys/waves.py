"""Waves of this run: which hosts change, in what order, and what keeps a wave from starting."""

from __future__ import annotations

import sys
from functools import cache

from corral_shared.text import printable
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.state import State

from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.planning.waves import Wave
from corral.rollout.activation import Traffic
from deploys.run import Run, failed, state, this_run
from operations.messages import complain, warn

# Each host goes its own way with these, so that no host waits for another's wave.
_WITHOUT_STEPS = {"--no-wait", "--serial"}


def numbers() -> range:
    """Numbers of the waves that this run may need, from 0. Raises PyinfraError."""
    if found := sorted(_WITHOUT_STEPS & set(sys.argv)):
        raise PyinfraError(
            f"waves cannot be kept with {found[0]}\n  Next: run the deploy without it"
        )
    try:
        run = this_run()
        return range(len(run.fleet.waves()))
    except CorralError as error:
        raise PyinfraError(printable(error)) from error


def traffic() -> Traffic:
    """The gateways of this inventory."""
    return this_run().traffic


def gateway_hosts() -> tuple[Host, ...]:
    """Hosts of this inventory with a gateway."""
    return tuple(host for host in this_run().fleet.everyone if host.spec.gateway)


def note(host: Host, *, waiting: bool) -> None:
    """Note whether a host has instances that do not serve what is planned."""
    run = this_run()
    run.checked.add(host.name)
    if waiting:
        run.waiting.add(host.name)


def is_turn(host: Host, number: int) -> bool:
    """Whether a host changes in this wave, and nothing blocks the wave.

    Only known once pyinfra has prepared. What stops a wave is said once.
    """
    run = this_run()
    if run.left_out is None:
        run.left_out = failed()
    due = run.fleet.waves(run.waiting - run.left_out)
    if number >= len(due) or host.name not in due[number].hosts:
        return False
    if reason := _obstacle(run, host):
        _say_once(state(), f"{due[number].name} does not start: {reason}")
        return False
    _warn_once(state(), due[number])
    return True


def _obstacle(run: Run, host: Host) -> str:
    left_out = run.left_out or frozenset()
    if names := sorted(failed() - left_out):
        return f"{', '.join(names)} failed. Next: fix that, then run the same deploy again"
    if left_out and not host.options.without_failed:
        return (
            f"{', '.join(sorted(left_out))} failed before, or was not reached, and no service was "
            "touched. Next: fix that, or go on without with `--data without_failed=true`"
        )
    return ""


@cache
def _say_once(_: State, line: str) -> None:
    complain(line)


@cache
def _warn_once(_: State, wave: Wave) -> None:
    for warning in wave.warnings:
        warn(f"{wave.name}: {warning}")


def finish(host: Host) -> None:
    """Note that a host serves its plan now."""
    this_run().done.add(host.name)


def is_done(host: Host) -> bool:
    """Whether a host had nothing to change, or has changed."""
    run = this_run()
    return host.name not in run.waiting or host.name in run.done


def is_settled(server: str) -> bool:
    """Whether HOST/INSTANCE serves its plan, as far as this run knows."""
    run, host = this_run(), server.rpartition("/")[0]
    return host in run.checked and (host not in run.waiting or host in run.done)


def may_end(host: Host) -> bool:
    """Whether no host failed but those that are gone on without."""
    return not failed() or host.options.without_failed
