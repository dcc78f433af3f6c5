"""Which host builds which engine release; hosts with equal keys share one build. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from corral.inventory.hosts import Host
from corral.plan.fleet import Build
from corral.plan.release import ReleasePlan


def builds(
    hosts: Sequence[Host], releases: Mapping[str, Iterable[ReleasePlan]]
) -> dict[str, Build]:
    """Release key -> build, for hosts in the order of their inventory.

    + releases: host name -> its releases
    """
    users: dict[str, list[Host]] = {}
    planned: dict[str, ReleasePlan] = {}
    for host in hosts:
        for release in releases[host.name]:
            planned.setdefault(release.key, release)
            users.setdefault(release.key, []).append(host)
    return {key: _build(release, users[key], hosts) for key, release in planned.items()}


def _build(release: ReleasePlan, users: Sequence[Host], hosts: Sequence[Host]) -> Build:
    marked = [] if release.native else _marked(release, users, hosts)
    candidates = list(dict.fromkeys(host.name for host in [*marked, *users]))
    if release.native:
        because = "native: for its own processor"
    elif marked:
        because = f"a builder of {release.artifact.platform}"
    elif len(users) == 1:
        because = "the only host with this key"
    else:
        because = f"the first of {len(users)} hosts with this key"
    names = tuple(host.name for host in users)
    return Build(release=release, candidates=tuple(candidates), users=names, because=because)


def _marked(release: ReleasePlan, users: Sequence[Host], hosts: Sequence[Host]) -> list[Host]:
    """Hosts marked builder on the release's platform; those that run it first."""
    platform = release.artifact.platform
    marked = [host for host in hosts if host.spec.builder and host.spec.platform == platform]
    return sorted(marked, key=lambda host: host not in users)


def differences(ours: ReleasePlan, theirs: ReleasePlan) -> list[str]:
    """Why two releases of one engine have different keys: ``NAME: ours here, theirs there``."""
    pairs = {
        "commit": (ours.commit[:12], theirs.commit[:12]),
        "made as": (ours.artifact.kind, theirs.artifact.kind),
        "back end": (ours.backend, theirs.backend),
        "native": (str(ours.native), str(theirs.native)),
    }
    here, there = ours.artifact.described, theirs.artifact.described
    for name in dict.fromkeys([*here, *there]):
        pairs[name] = (here.get(name, "unset"), there.get(name, "unset"))
    different = [f"{name}: {one} here, {other} there" for name, (one, other) in pairs.items()
                 if one != other]  # fmt: skip
    return different or ["the text of patches, or the programs to build"]


def built_by(host: Host, fleet: Mapping[str, Build]) -> tuple[ReleasePlan, ...]:
    """Releases that a host builds for the fleet, with the source URLs of that host."""
    return tuple(_fetched_by(host, b.release) for b in fleet.values() if b.builder == host.name)


def _fetched_by(host: Host, release: ReleasePlan) -> ReleasePlan:
    """A release with the source URL that ``host`` is configured to use."""
    artifact = release.artifact
    if host.spec.bundle:
        # One bundle serves a fleet: the release has its address already.
        return release
    url = host.spec.engine_sources.get(release.engine, artifact.source_url)
    return release.model_copy(update={"artifact": artifact.fetched_from(url)})
