"""The common part of `corral rollout` and `corral revert --rollout`: run, show, record."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

from corral.cli.views.rollout import outcome_table
from corral.project import project_root, templates
from corral.remote.client import current_operator
from corral.remote.progress import Progress
from corral.rollout.activation import Driver
from corral.rollout.begin import Fleet
from corral.rollout.gateways import PlannedGateways
from corral.rollout.health import Health
from corral.rollout.journal import Journals, Rollout, write_whole
from corral.rollout.locks import HostLocks
from corral.rollout.page import outcome, page
from corral.rollout.run import Context, Course, Pair
from corral.rollout.view import LineView, LiveView
from corral.terminal import console, echo, show


def holding(found: Fleet, rollout: str) -> HostLocks:
    """Locks of all hosts of a fleet and of the gateways in front of them, where possible."""
    return HostLocks(
        (),
        by=current_operator(),
        rollout=rollout,
        also=(*found.pairs, *found.gateways, *found.selected_gateways),
    )


def run_course(
    begun: Rollout,
    found: Fleet,
    journals: Journals,
    holds: HostLocks,
    leave: frozenset[str] = frozenset(),
) -> Rollout:
    """Run a rollout to its end under its hosts' locks, and print its outcome."""
    hosts = {host.name: (host, plan) for host, plan in found.pairs}
    known = {host.name: (host, plan) for host, plan in found.selected_gateways} | hosts
    changing = dict.fromkeys([*(s.host for s in begun.steps), *(s.host for s in begun.gateways)])
    touched = [known[name] for name in changing if name in known]
    gateways = PlannedGateways(found.selected_gateways, templates(project_root()), begun.id)
    terminal = console()
    view = LiveView(terminal, begun) if terminal.is_terminal else LineView(terminal)

    def drive(pair: Pair, on_progress: Callable[[str, Progress], None]) -> Driver:
        return Driver(*pair, found.traffic, begun.id, on_progress)

    try:
        holds.need(touched)
        save = partial(_save, journals)
        verified = found.verified_gateways(begun.left_out)
        context = Context(
            hosts, drive, Health(found.checked, found.document), holds.check, save, view,
            gateways, verified,
        )  # fmt: skip
        with view if isinstance(view, LiveView) else nullcontext():
            ended = Course(begun, context, leave).run()
    except KeyboardInterrupt:
        _print_interrupted(begun)
        # Do not wait for the threads that still follow hosts.
        os._exit(130)
    _print_outcome(ended, journals)
    return ended


def _save(journals: Journals, rollout: Rollout) -> None:
    journals.save(rollout)
    text = page(rollout, templates(project_root()))
    write_whole(journals.path(rollout.id, "page.html"), text)


def _print_outcome(ended: Rollout, journals: Journals) -> None:
    show(outcome_table(ended))
    if ended.failure:
        echo(f"not converged: {ended.failure}", err=True)
    echo(f"{outcome(ended)} (exit code {ended.exit_code})")
    echo(f"report: {journals.path(ended.id, 'page.html')}, rollout.json beside it")


def _print_interrupted(begun: Rollout) -> None:
    echo(
        "\ninterrupted. Hosts finish their activations: confirmed ones are kept, others reverted."
        f"\n  Next: run `corral rollout {begun.inventory} --resume`, or "
        f"`corral revert --rollout {begun.id}`",
        err=True,
    )
