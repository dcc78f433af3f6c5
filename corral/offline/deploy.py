"""What a deploy takes from a bundle: package sources for hosts, releases, and what it lacks."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from corral.errors import CorralError
from corral.findings import Finding
from corral.inventory.hosts import Host
from corral.offline.by_ssh import on_loopback
from corral.offline.manifest import Bundle
from corral.offline.needs import image_name, sources_name, weights_name
from corral.offline.verify import Opened
from corral.plan.host import HostPlan
from corral.plan.release import CmakeBuild, MadeImage, OwnImage, PythonEnvironment, ReleasePlan
from corral.plan.weights import ShardPlan
from corral.store.engine_archives import ArchiveStore

_CONNECT_SECONDS = 3
_PORTS = {"http": 80, "https": 443}
APT_FOLDER = "/etc/corral/apt"
APT_CONFIG = f"{APT_FOLDER}/bundle.conf"
APT_SOURCES = f"{APT_FOLDER}/bundle.sources"


@dataclass(frozen=True)
class AptFiles:
    """Files that make apt use a bundle alone, for commands that have ``config`` as APT_CONFIG."""

    files: dict[str, str]
    config: str = APT_CONFIG


@dataclass(frozen=True)
class HostBundle:
    """The bundle of a host, as its deploy uses it."""

    opened: Opened
    url: str

    @property
    def bundle(self) -> Bundle:
        """Its manifest."""
        return self.opened.bundle

    def apt(self, platform: str) -> AptFiles:
        """Package sources for hosts of a platform."""
        netloc = urlsplit(self.url).hostname
        settings = [
            f'Dir::Etc::SourceList "{APT_SOURCES}";',
            'Dir::Etc::SourceParts "-";',
            # The host's own indexes stay.
            'APT::Get::List-Cleanup "false";',
            # Hosts without a network have no time server either.
            'Acquire::Check-Date "false";',
            'Acquire::Languages "none";',
            f'Acquire::http::Proxy::{netloc} "DIRECT";',
        ]
        lines = [line.strip() for line in self.bundle.apt_key.strip().splitlines()]
        key = "".join(f" {line or '.'}\n" for line in lines)
        sources = f"Types: deb\nURIs: {self.url}/apt/{platform}/\nSuites: ./\nSigned-By:\n{key}"
        return AptFiles(
            {APT_CONFIG: "".join(f"{line}\n" for line in settings), APT_SOURCES: sources}
        )

    def findings(
        self,
        plan: HostPlan,
        shards: Sequence[ShardPlan],
        releases: Sequence[ReleasePlan],
        *,
        packages: bool,
    ) -> list[Finding]:
        """Why a host cannot be deployed from the bundle.

        + shards: weights that it lacks; + releases: those that it lacks and this controller, too
        + packages: whether it lacks some
        """
        bundle, found = self.bundle, []
        step = f"write one with `corral bundle -o FOLDER INVENTORY` that has {plan.host}"
        known = bundle.needed
        if packages and f"apt/{plan.platform}/Packages" not in known:
            what = (
                f"the bundle of {bundle.at} has packages for {', '.join(bundle.platforms)}, and "
                f"the host is {plan.platform}"
            )
            found.append(Finding(what=what, next_step=step))
        for shard in shards:
            file = known.get(weights_name(plan, shard.path))
            if file is None or file.sha256 != shard.sha256:
                name = weights_name(plan, shard.path).removeprefix("weights/")
                what = f"the bundle of {bundle.at} has no {name} as the lock has it"
                found.append(Finding(what=what, next_step=step))
        for release in releases:
            if not _comes_from(bundle, release):
                what = f"the bundle of {bundle.at} has no {release.engine} {release.key}"
                found.append(Finding(what=what, next_step=step))
        wanted = packages or shards or releases
        return [*found, *(_unserved(self) if wanted else ())]


def _unserved(bundle: HostBundle) -> list[Finding]:
    """Advice where nothing answers here at the bundle's URL, which may be for hosts alone."""
    if _answers(bundle.url):
        return []
    way = "--ssh INVENTORY" if on_loopback(bundle.url) else "--address ADDRESS"
    what = f"nothing serves the bundle at {bundle.url}, as far as this controller sees"
    step = f"`corral bundle serve {bundle.opened.folder} {way}`, and leave it running"
    return [Finding(what=what, next_step=step, stops=False)]


@cache
def _answers(url: str) -> bool:
    """Once a run: hosts share a bundle."""
    parts = urlsplit(url)
    try:
        at = (parts.hostname or "", parts.port or _PORTS[parts.scheme])
        socket.create_connection(at, timeout=_CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def _comes_from(bundle: Bundle, release: ReleasePlan) -> bool:
    """Whether a host can make a release of which there is no archive."""
    made = release.artifact.of.artifact if isinstance(release.artifact, MadeImage) else None
    artifact = made or release.artifact
    if isinstance(artifact, CmakeBuild):
        return sources_name(release.engine, release.commit) in bundle.needed
    if isinstance(artifact, OwnImage):
        return image_name(artifact.sha256, artifact.image) in bundle.needed
    return isinstance(artifact, PythonEnvironment) and bool(bundle.of("wheels"))


def bundle_of(host: Host) -> HostBundle | None:
    """The bundle that a host is deployed from. Raises CorralError for one that is not sound."""
    spec = host.spec.bundle
    if spec is None:
        return None
    key = Path(spec.public_key).expanduser() if spec.public_key else None
    return HostBundle(Opened(Path(spec.folder).expanduser(), public_key=key), spec.url.rstrip("/"))


def take_archives(bundle: HostBundle, plan: HostPlan, store: ArchiveStore) -> int:
    """Copy archives of a host's releases to the store of this controller; returns how many.

    Each is proved by its digest. Raises CorralError.
    """
    count, theirs = 0, ArchiveStore(bundle.opened.folder / "archives")
    for release in plan.releases:
        name = f"archives/{release.engine}/{release.key}"
        file = next((f for f in bundle.bundle.files if f.name == f"{name}.tar.zst"), None)
        if file is None or release.native or store.find(release.engine, release.key):
            continue
        archive = theirs.find(release.engine, release.key)
        if archive is None or archive.sha256 != file.sha256:
            what = f"its archive of {release.engine} {release.key} is damaged"
            step = f"`corral bundle verify {bundle.opened.folder}`"
            raise CorralError(str(bundle.opened.folder), what, step)
        store.copy_from(theirs, archive)
        count += 1
    return count
