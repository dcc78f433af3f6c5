"""Stage: engine releases, built once from their pinned commits and shipped to who runs them."""

from __future__ import annotations

from functools import partial

from pyinfra import host

from deploys import waves
from deploys.fleet import is_wanted, lacking, provides
from deploys.run import this_run
from deploys.target import Target
from operations import engine


def engines(target: Target) -> None:
    """Build what this host builds for the fleet, bring it home, install what is missing here."""
    this = host.name
    made = this_run().made.setdefault(this, set())
    supply = engine.Supply(target.plan.paths, target.store, made)
    engine.builds(
        missing=target.missing_builds(),
        supply=supply,
        is_due=partial(provides, this),
        name="Engine builds",
    )
    packed = target.unpacked_releases()
    engine.archives(
        installed=packed,
        supply=supply,
        is_due=partial(is_wanted, this),
        name="Engine archives",
        _if=lambda: any(is_wanted(this, release.key) for release in packed),
    )
    if target.plan.swarm:
        share(target, supply, engine.Sharing(target.plan.swarm, lacking))
    engine.releases(missing=target.missing_releases(), supply=supply, name="Engine releases")
    engine.flags(plan=target.plan, waiting=target.waiting_instances(), name="Engine flags")


def share(target: Target, supply: engine.Supply, sharing: engine.Sharing) -> None:
    """Bring archives to one host of a swarm, and from there to the others."""
    missing = target.missing_releases()
    engine.first_archives(
        missing=missing, supply=supply, sharing=sharing, name="Engine archives for other hosts"
    )
    engine.shared_archives(
        missing=missing, supply=supply, sharing=sharing, name="Engine archives between hosts"
    )


def prune(target: Target) -> None:
    """Remove releases that no generation names any more."""
    changes = bool(target.waiting_instances())
    unused = target.state.unused_releases
    engine.pruned(
        unused=unused,
        changes=changes,
        plan=target.plan,
        name="Unused releases",
        _if=partial(waves.is_done, target.host),
    )
