"""What the hosts of this run share: each engine release is built by one of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache

from pyinfra.api.host import Host as PyinfraHost
from pyinfra.api.state import State
from pyinfra.context import ctx_state

from corral.inventory.hosts import Host, parse_host
from corral.plan.gateway import GatewayPlan
from corral.plan.release import ReleasePlan
from corral.planning.builders import Build, builds
from corral.planning.planner import Planner
from corral.project import load_planner, project_root


@dataclass
class _Run:
    """What is known of the hosts of one run; told while pyinfra prepares, read while it runs."""

    builds: dict[str, Build]
    having: dict[str, set[str]] = field(default_factory=dict)
    lacking: dict[str, set[str]] = field(default_factory=dict)


@cache
def planner() -> Planner:
    """The planner of this checkout, read once a run."""
    return load_planner(project_root())


@cache
def _run(of: State) -> _Run:
    reached = [host for host in of.inventory if host in of.activated_hosts]
    hosts = [parsed(host) for host in reached]
    return _Run(builds(hosts, {host.name: planner().releases(host) for host in hosts}))


def _this_run() -> _Run:
    return _run(_state())


def _state() -> State:
    """pyinfra's own object; what it exports is a proxy, another for each question."""
    found: State = ctx_state.get()  # type: ignore[no-untyped-call]
    return found


def everyone() -> tuple[Host, ...]:
    """All hosts of the inventory, also those that --limit leaves out or that are not reached.

    Raises CorralError.
    """
    return _everyone(_state())


@cache
def _everyone(of: State) -> tuple[Host, ...]:
    return tuple(parsed(host) for host in of.inventory)


def gateways() -> dict[str, GatewayPlan]:
    """Host -> what it serves for others. Raises CorralError."""
    return _gateways(_state())


@cache
def _gateways(of: State) -> dict[str, GatewayPlan]:
    return planner().gateways(_everyone(of))


def parsed(host: PyinfraHost) -> Host:
    """A host of pyinfra's, as Corral reads it. Raises CorralError."""
    data = host.data.dict()  # type: ignore[no-untyped-call]
    return parse_host(host.name, data, origin=_origin(host.groups))


def for_host(host: Host) -> tuple[ReleasePlan, ...]:
    """Releases that a host is the first to build, fetched from where it fetches sources.

    Raises CorralError.
    """
    return tuple(
        fetched_by(host, build.release)
        for build in _this_run().builds.values()
        if build.builder == host.name
    )


def fetched_by(host: Host, release: ReleasePlan) -> ReleasePlan:
    """A release with the source that a host is told to use."""
    url = host.spec.engine_sources.get(release.engine, release.source_url)
    return release.model_copy(update={"source_url": url})


def tell(host: str, releases: Iterable[ReleasePlan], *, missing: Iterable[ReleasePlan]) -> None:
    """Note which releases a host of this run has, and which it lacks."""
    run, lacking = _this_run(), {release.key for release in missing}
    for release in releases:
        known = run.lacking if release.key in lacking else run.having
        known.setdefault(release.key, set()).add(host)


def provides(host: str, key: str) -> bool:
    """Whether an archive is due from this host: the first that has the release, or can build it.

    Only known once pyinfra has prepared; a host that failed provides nothing.
    """
    run = _this_run()
    candidates = [name for name in run.builds[key].candidates if name not in _failed()]
    having = [name for name in candidates if name in run.having.get(key, ())]
    return host == next(iter([*having, *candidates]), None)


def is_wanted(host: str, key: str) -> bool:
    """Whether a host that has a release shall pack it, as others of this run lack it."""
    return bool(_this_run().lacking.get(key, set()) - _failed()) and provides(host, key)


def _failed() -> set[str]:
    return {host.name for host in _state().failed_hosts}


def _origin(groups: Iterable[str]) -> str:
    """The inventory's file; pyinfra tells it only by the group that it names after the file."""
    files = [f"inventories/{group}.py" for group in groups]
    return next((file for file in files if (project_root() / file).is_file()), "the inventory")
