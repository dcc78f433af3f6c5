"""What `corral rollout` and `corral revert --rollout` share: a course, watched and written down."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

from corral.cli.views.rollout import outcome_table
from corral.project import project_root
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
from corral.terminal import console, say, show


def holding(found: Fleet, rollout: str) -> HostLocks:
    """Hold all hosts of a fleet, and the gateways in front of them, where that can be."""
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
    """Go on with a rollout to its end, holding its hosts, and tell how it ended."""
    hosts = {host.name: (host, plan) for host, plan in found.pairs}
    known = {host.name: (host, plan) for host, plan in found.selected_gateways} | hosts
    changing = dict.fromkeys([*(s.host for s in begun.steps), *(s.host for s in begun.gateways)])
    touched = [known[name] for name in changing if name in known]
    gateways = PlannedGateways(found.selected_gateways, project_root() / "templates", begun.id)
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
        _tell_interrupted(begun)
        # Not waiting for the threads that still listen to hosts.
        os._exit(130)
    _tell(ended, journals)
    return ended


def _save(journals: Journals, rollout: Rollout) -> None:
    journals.save(rollout)
    text = page(rollout, project_root() / "templates")
    write_whole(journals.path(rollout.id, "page.html"), text)


def _tell(ended: Rollout, journals: Journals) -> None:
    show(outcome_table(ended))
    if ended.failure:
        say(f"not converged: {ended.failure}", err=True)
    say(f"{outcome(ended)} (exit code {ended.exit_code})")
    say(f"report: {journals.path(ended.id, 'page.html')}, rollout.json beside it")


def _tell_interrupted(begun: Rollout) -> None:
    say(
        "\ninterrupted. What hosts are doing ends there: kept only if it was confirmed, else taken "
        f"back.\n  Next: `corral rollout {begun.inventory} --resume`, or "
        f"`corral revert --rollout {begun.id}`",
        err=True,
    )
