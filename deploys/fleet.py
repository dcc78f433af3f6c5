"""What the hosts of this run share: each engine release is built by one of them."""

from __future__ import annotations

from collections.abc import Iterable

from corral.plan.release import ReleasePlan
from deploys.run import failed, this_run


def tell(host: str, releases: Iterable[ReleasePlan], *, missing: Iterable[ReleasePlan]) -> None:
    """Note which releases a host of this run has, and which it lacks."""
    run, lacking = this_run(), {release.key for release in missing}
    for release in releases:
        known = run.lacking if release.key in lacking else run.having
        known.setdefault(release.key, set()).add(host)


def provides(host: str, key: str) -> bool:
    """Whether an archive is due from this host: the first that has the release, or can build it.

    Only known once pyinfra has prepared; a host that failed provides nothing.
    """
    run, without = this_run(), failed()
    candidates = [name for name in run.fleet.builds[key].candidates if name not in without]
    having = [name for name in candidates if name in run.having.get(key, ())]
    return host == next(iter([*having, *candidates]), None)


def is_wanted(host: str, key: str) -> bool:
    """Whether a host that has a release shall pack it, as others of this run lack it."""
    return bool(this_run().lacking.get(key, set()) - failed()) and provides(host, key)


def lacking(key: str) -> frozenset[str]:
    """Hosts of this run that lack a release and may still get it: not those that built it."""
    run = this_run()
    made = {name for name, keys in run.made.items() if key in keys}
    return frozenset(run.lacking.get(key, set())) - made - failed()
