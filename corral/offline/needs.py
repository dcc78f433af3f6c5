"""What the hosts of an inventory need from a bundle, read from their plans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from corral.catalog.drivers import AptSource, PinnedPackages
from corral.catalog.entries import Catalog
from corral.inventory.hosts import Host, Inventory
from corral.offline.fetch import Source
from corral.offline.programs import this_platform
from corral.plan.host import HostPlan
from corral.plan.release import CmakeBuild, MadeImage, OwnImage, PythonEnvironment, ReleasePlan
from corral.planning.fleet import plan_fleet
from corral.planning.planner import Planner
from corral.store.engine_archives import Archive, ArchiveStore, archives_folder

# The newest kernel's: DKMS builds the module of a driver against those of the running one.
_KERNEL_HEADERS = {"debian": "linux-headers-amd64", "ubuntu": "linux-headers-generic"}
# To install Corral beside the hosts, to prove a bundle there, and to reach them.
_OF_A_CONTROLLER = ("minisign", "openssh-client", "python3-venv")


@dataclass(frozen=True)
class PackageSet:
    """Packages that are installed together.

    + pins: of some of them; + source: a repository that has them, beside the distribution's
    + catalog: the file that says so
    """

    packages: tuple[str, ...]
    pins: tuple[PinnedPackages, ...] = ()
    source: AptSource | None = None
    catalog: str = ""


@dataclass(frozen=True)
class StoredArchive:
    """An archive of a release in a store of this controller."""

    archive: Archive
    store: ArchiveStore


@dataclass(frozen=True)
class EngineSources:
    """A commit of an engine; ``because``: which release of which host is built from it."""

    engine: str
    url: str
    commit: str
    because: str


@dataclass(frozen=True)
class Needs:
    """All that hosts need; names are those of files of a bundle.

    + digests: of weights and files beside them, whose headers plans are made from
    + sources: of engines without an archive, which hosts build
    + environments: Python environments without an archive, which hosts install from wheels
    + packages: platform -> sets of packages, the first the hosts' own and a controller's
    + left_out: what the bundle will not have, a sentence each
    """

    hosts: tuple[str, ...]
    weights: dict[str, Source] = field(default_factory=dict)
    digests: tuple[str, ...] = ()
    archives: tuple[StoredArchive, ...] = ()
    sources: dict[str, EngineSources] = field(default_factory=dict)
    environments: tuple[PythonEnvironment, ...] = ()
    images: tuple[ReleasePlan, ...] = ()
    packages: dict[str, tuple[PackageSet, ...]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


def needs_of(inventory: Inventory, planner: Planner) -> Needs:
    """Plan every host as if it had a network. Raises CorralError for one that cannot be planned."""
    for mistake in inventory.mistakes.values():
        raise mistake
    hosts = [_connected(host) for host in inventory.hosts]
    fleet = plan_fleet(hosts, planner)
    plans = [fleet.plan(host.name) for host in hosts]
    weights = {
        weights_name(plan, shard.path): Source(
            url=shard.url, sha256=shard.sha256, size_bytes=shard.size_bytes, gated=shard.gated
        )
        for plan in plans
        for shard in plan.shards
    }
    releases = _releases(hosts, plans)
    return Needs(
        hosts=tuple(host.name for host in hosts),
        weights=weights,
        digests=tuple(dict.fromkeys(source.sha256 for source in weights.values())),
        archives=tuple(releases.archives.values()),
        sources=releases.sources,
        environments=tuple(releases.environments.values()),
        images=tuple(releases.images.values()),
        packages=_packages(plans, planner.catalog),
        left_out=tuple(_left_out(plans)),
    )


def weights_name(plan: HostPlan, path: str) -> str:
    """The name in a bundle of a file of weights of a host."""
    return f"weights/{PurePosixPath(path).relative_to(plan.paths.models)}"


def image_name(sha256: str, file: str) -> str:
    """The name in a bundle of an image of the site's own."""
    return f"images/{sha256}/{file}"


def sources_name(engine: str, commit: str) -> str:
    """The name in a bundle of a commit of an engine."""
    return f"sources/{engine}/{commit}.pack"


def archive_names(archive: Archive) -> tuple[str, str]:
    """The names in a bundle of an archive and of its description."""
    base = f"archives/{archive.engine}/{archive.key}"
    return f"{base}.tar.zst", f"{base}.json"


def _connected(host: Host) -> Host:
    return host.model_copy(update={"spec": host.spec.model_copy(update={"bundle": None})})


@dataclass
class _Releases:
    """Archives by key, and what hosts make themselves where there is none."""

    archives: dict[str, StoredArchive] = field(default_factory=dict)
    sources: dict[str, EngineSources] = field(default_factory=dict)
    environments: dict[str, PythonEnvironment] = field(default_factory=dict)
    images: dict[str, ReleasePlan] = field(default_factory=dict)

    def add(self, host: Host, release: ReleasePlan) -> None:
        """A release that this controller has no archive of."""
        made = release.artifact
        if isinstance(made, MadeImage):
            made = made.of.artifact
        if isinstance(made, OwnImage):
            self.images[release.key] = release
        elif isinstance(made, PythonEnvironment):
            self.environments[release.key] = made
        elif isinstance(made, CmakeBuild):
            because = f"{host.name} builds {release.engine} {release.key}"
            found = EngineSources(release.engine, made.source_url, release.commit, because)
            self.sources.setdefault(sources_name(release.engine, release.commit), found)


def _releases(hosts: Sequence[Host], plans: Sequence[HostPlan]) -> _Releases:
    found = _Releases()
    for host, plan in zip(hosts, plans, strict=True):
        store = ArchiveStore(archives_folder(host))
        for release in (*plan.releases, *plan.builds):
            archive = None if release.native else store.find(release.engine, release.key)
            if archive:
                found.archives[release.key] = StoredArchive(archive, store)
            else:
                found.add(host, release)
    return found


def _packages(plans: Sequence[HostPlan], catalog: Catalog) -> dict[str, tuple[PackageSet, ...]]:
    base: dict[str, set[str]] = {}
    pinned: dict[str, dict[PackageSet, None]] = {}
    for plan in plans:
        monitoring = plan.monitoring.packages if plan.monitoring else ()
        base.setdefault(plan.platform, set()).update(plan.packages, monitoring)
        found = pinned.setdefault(plan.platform, {})
        found |= dict.fromkeys((*_driver_sets(plan), *_program_sets(plan, catalog)))
    if here := base.get(this_platform()):
        here.update(_OF_A_CONTROLLER)
    return {
        platform: (PackageSet(tuple(sorted(names))), *pinned[platform])
        for platform, names in sorted(base.items())
    }


def _left_out(plans: Sequence[HostPlan]) -> Iterator[str]:
    here = this_platform()
    if here not in {plan.platform for plan in plans}:
        wanted = f"{', '.join(_OF_A_CONTROLLER[:-1])} and {_OF_A_CONTROLLER[-1]}"
        of = here or "an unknown distribution"
        yield f"{wanted} for a controller of {of}: no host is of this distribution"
    in_images = [
        plan.host
        for plan in plans
        if any(instance.runtime.kind != "native" for instance in plan.instances)
    ]
    if in_images:
        yield f"a program to run images on {', '.join(in_images)}: install it there before"


def _program_sets(plan: HostPlan, catalog: Catalog) -> Iterator[PackageSet]:
    """Programs of the monitoring that no distribution has."""
    wanted = {one.package for one in plan.monitoring.programs} if plan.monitoring else set()
    for name, program in catalog.programs.items():
        if wanted & set(program.packages.packages):
            file = f"catalog/programs/{name}.toml"
            yield PackageSet(program.packages.packages, (program.packages,), program.source, file)


def _driver_sets(plan: HostPlan) -> Iterator[PackageSet]:
    source = plan.gpu_setup.sources.get(plan.platform) if plan.gpu_setup else None
    if source is None:
        return
    headers = _KERNEL_HEADERS.get(plan.platform.partition("-")[0])
    driver = (*source.driver.packages, *([headers] if headers else []))
    toolkits = any(release.artifact.cuda_toolkit for release in plan.builds)
    for packages in (driver, *([source.toolkit.packages] if toolkits else [])):
        file = f"catalog/drivers/{plan.platform}.toml"
        yield PackageSet(packages, (source.driver, source.toolkit), source.source, file)


def header_files(folder: Path, digests: Sequence[str]) -> list[Path]:
    """Files of the cache of headers that plans of these weights are made from."""
    return [path for digest in digests for path in sorted(folder.glob(f"{digest}.*"))]
