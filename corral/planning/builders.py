"""Who builds which engine release: hosts whose keys are equal share one build. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from corral.inventory.hosts import Host
from corral.plan.fleet import Build
from corral.plan.release import ReleasePlan


def builds(
    hosts: Sequence[Host], releases: Mapping[str, Iterable[ReleasePlan]]
) -> dict[str, Build]:
    """Key -> build, for hosts in the order of their inventory.

    + releases: of each host, by its name
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
        because = f"a builder of {release.toolchain.platform}"
    elif len(users) == 1:
        because = "the only host with this key"
    else:
        because = f"the first of {len(users)} hosts with this key"
    names = tuple(host.name for host in users)
    return Build(release=release, candidates=tuple(candidates), users=names, because=because)


def _marked(release: ReleasePlan, users: Sequence[Host], hosts: Sequence[Host]) -> list[Host]:
    """Hosts marked builder that have the release's platform; those that run it before others."""
    platform = release.toolchain.platform
    marked = [host for host in hosts if host.spec.builder and host.spec.platform == platform]
    return sorted(marked, key=lambda host: host not in users)


def differences(ours: ReleasePlan, theirs: ReleasePlan) -> list[str]:
    """Why two releases of one engine have different keys: ``what: ours here, theirs there``."""
    pairs = {
        "commit": (ours.commit[:12], theirs.commit[:12]),
        "patches": (_names(ours), _names(theirs)),
        "back end": (ours.backend, theirs.backend),
        "native": (str(ours.native), str(theirs.native)),
        **_toolchain_pairs(ours, theirs),
        **_option_pairs(ours, theirs),
    }
    told = [f"{what}: {here} here, {there} there" for what, (here, there) in pairs.items()
            if here != there]  # fmt: skip
    return told or ["the text of patches, or programs that are built"]


def _names(release: ReleasePlan) -> str:
    return ", ".join(patch.name for patch in release.patches) or "none"


def _toolchain_pairs(ours: ReleasePlan, theirs: ReleasePlan) -> dict[str, tuple[str, str]]:
    here, there = ours.toolchain.model_dump(), theirs.toolchain.model_dump()
    return {name.replace("_", " "): (str(here[name]), str(there[name])) for name in here}


def _option_pairs(ours: ReleasePlan, theirs: ReleasePlan) -> dict[str, tuple[str, str]]:
    here, there = _options(ours), _options(theirs)
    names = sorted(here.keys() | there.keys())
    return {name: (here.get(name, "unset"), there.get(name, "unset")) for name in names}


def _options(release: ReleasePlan) -> dict[str, str]:
    pairs = (option.removeprefix("-D").partition("=") for option in release.cmake_options)
    return {name: value for name, _, value in pairs}


def built_by(host: Host, fleet: Mapping[str, Build]) -> tuple[ReleasePlan, ...]:
    """Releases that a host is the first to build, fetched from where it fetches sources."""
    return tuple(_fetched_by(host, b.release) for b in fleet.values() if b.builder == host.name)


def _fetched_by(host: Host, release: ReleasePlan) -> ReleasePlan:
    """A release of another host, with the source that this one is told to use."""
    url = host.spec.engine_sources.get(release.engine, release.source_url)
    return release.model_copy(update={"source_url": url})
