"""Engine releases: built on one host of each kind, shipped to the others."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import Any

from pyinfra import host
from pyinfra.api import operation
from pyinfra.api.command import FunctionCommand, QuoteString, StringCommand
from pyinfra.api.host import Host
from pyinfra.api.state import State

from corral.engines import engine_module
from corral.engines.flags import refuse_unknown_flags
from corral.errors import CorralError
from corral.host.answers import MANIFEST, SHARED
from corral.host.reading import as_answer
from corral.paths import HostPaths
from corral.plan.host import HostPlan
from corral.plan.instance import InstancePlan
from corral.plan.release import ReleasePlan
from corral.plan.swarm import SwarmPlan
from corral.smoke_model.fixture import SmokeModel
from corral.store.engine_archives import SUFFIX, Archive, ArchiveStore
from operations import Commands, job, put_bytes, transfer
from operations.connection import helper_on


@dataclass(frozen=True)
class Supply:
    """What releases of a host are made and shipped with.

    + store: archives on the controller
    + made: keys of what was built, and thereby installed, on the host in this run
    + there: by key, what arrived on the host in this run, from here or from other hosts
    """

    paths: HostPaths
    store: ArchiveStore
    made: set[str] = field(default_factory=set)
    there: dict[str, dict[str, Any]] = field(default_factory=dict)

    def find(self, release: ReleasePlan) -> Archive | None:
        """The archive of a release in the store. Raises CorralError."""
        return self.store.find(release.engine, release.key)

    def path(self, release: ReleasePlan) -> str:
        """Where the archive of a release is put on the host."""
        return f"{self.paths.archives}/{release.key}{SUFFIX}"

    def sent(self, release: ReleasePlan, archive: Archive) -> dict[str, Any]:
        """An archive on the host, as a spec of a job has it."""
        return {
            "path": self.path(release), "size_bytes": archive.size_bytes,
            "sha256": archive.sha256, "unpacked_bytes": archive.unpacked_bytes,
        }  # fmt: skip

    def arrived(self, release: ReleasePlan, archive: Archive) -> None:
        """Note that the archive is on the host."""
        self.there[release.key] = self.sent(release, archive)

    def put_models(self, releases: Sequence[ReleasePlan]) -> Iterator[StringCommand]:
        """The commands that write the models on the host that new programs are tried on."""
        for model in dict.fromkeys(smoke_model(release) for release in releases):
            yield put_bytes(model.path(self.paths), model.content())

    def spec(self, release: ReleasePlan) -> dict[str, Any]:
        """What a job of the helper needs to know about a release."""
        model = smoke_model(release)
        tried = {"path": model.path(self.paths), "sha256": model.sha256()}
        return {
            **release.model_dump(mode="json"),
            "compiler_cache": self.paths.compiler_cache,
            "state": self.paths.state,
            "smoke_model": tried,
        }


def smoke_model(release: ReleasePlan) -> SmokeModel:
    """The model of the format that the engine reads."""
    form = engine_module(release.kind).weights
    return SmokeModel("safetensors" if form == "safetensors" else "gguf")


@operation()
def builds(
    missing: Sequence[ReleasePlan], *, supply: Supply, is_due: Callable[[str], bool]
) -> Commands:
    """Build releases from their pinned commits, detached, and bring their archives home.

    + missing: those that this host could build; + is_due: whether it does, by key, asked when
    its turn comes: a host that failed before is stood in for.
    """
    if not missing:
        host.noop("nothing is missing that could be built here")
        return
    yield from supply.put_models(missing)
    for release in missing:
        yield FunctionCommand(provide, (release, supply, is_due, "build"), {})


@operation()
def archives(
    installed: Sequence[ReleasePlan], *, supply: Supply, is_due: Callable[[str], bool]
) -> Commands:
    """Pack releases that are installed here and missing elsewhere, and bring their archives home.

    + is_due: whether this host packs a release, by key, asked when its turn comes.
    """
    if not installed:
        host.noop("all archives are in the store")
        return
    for release in installed:
        yield FunctionCommand(provide, (release, supply, is_due, "pack"), {})


@dataclass(frozen=True)
class Sharing:
    """Archives between hosts of one run.

    + lacking: key -> hosts of the run that lack a release and may still get it, asked when the
      operation runs: only then it is known who failed
    """

    swarm: SwarmPlan
    lacking: Callable[[str], Collection[str]]

    def members(self, key: str) -> list[str]:
        """Members that lack a release, in the order of the inventory; none for one alone."""
        lacking = self.lacking(key)
        found = [peer.name for peer in self.swarm.peers if peer.name in lacking]
        return found if len(found) > 1 else []

    def is_first(self, key: str) -> bool:
        """Whether this host gets the archive from the controller, for all members."""
        return self.members(key)[:1] == [self.swarm.name]

    def spec(self, others: Collection[str]) -> dict[str, Any]:
        """The swarm, and who takes part."""
        expected = sorted(set(others) - {self.swarm.name})
        return {**self.swarm.model_dump(mode="json"), "expected": expected}


@operation()
def first_archives(missing: Sequence[ReleasePlan], *, supply: Supply, sharing: Sharing) -> Commands:
    """Send archives to the one host from which others of its swarm take them.

    + missing: releases that the host lacks
    """
    yield from _through_the_swarm(send_first, missing, supply, sharing)


@operation()
def shared_archives(
    missing: Sequence[ReleasePlan], *, supply: Supply, sharing: Sharing
) -> Commands:
    """Take archives from other hosts and serve them; what does not arrive, the controller sends.

    + missing: releases that the host lacks
    """
    yield from _through_the_swarm(exchange, missing, supply, sharing)


def _through_the_swarm(
    move: Callable[..., bool], missing: Sequence[ReleasePlan], supply: Supply, sharing: Sharing
) -> Commands:
    if not missing:
        host.noop("all releases are installed")
        return
    yield FunctionCommand(move, (tuple(missing), supply, sharing), {})


@operation()
def releases(missing: Sequence[ReleasePlan], *, supply: Supply) -> Commands:
    """Install releases from the store, each proved on this host before it counts."""
    if not missing:
        host.noop("all releases are installed")
        return
    yield from supply.put_models(missing)
    for release in missing:
        yield FunctionCommand(ship, (release, supply), {})


@operation()
def flags(plan: HostPlan, *, waiting: Sequence[InstancePlan]) -> Commands:
    """Compare the flags of instances with what their programs say that they know.

    + waiting: those that do not serve their planned generation.
    """
    if not waiting:
        host.noop("all instances serve their planned generation")
        return
    yield FunctionCommand(check_flags, (plan, waiting), {})


@operation()
def pruned(unused: Sequence[str], *, changes: bool, plan: HostPlan) -> Commands:
    """Remove releases that no generation names.

    + unused: their folders before this deploy; + changes: whether it activates anything.
    """
    if not unused and not changes:
        host.noop("no release is unused")
        return
    helper = QuoteString(plan.paths.helper)
    yield StringCommand("python3", "-I", helper, "prune", _stdin=plan.to_helper())


def provide(
    state: State,  # noqa: ARG001 - pyinfra's
    host: Host,
    release: ReleasePlan,
    supply: Supply,
    is_due: Callable[[str], bool],
    kind: str,
) -> bool:
    """Make an archive of a release on a host and bring it home, unless another host does."""
    if not is_due(release.key):
        return True
    # A native release is its host's alone, and is built again where the processor changed.
    then = None if release.native else partial(transfer.bring_home, supply.store, release)
    name, spec = f"build-{release.engine}", supply.spec(release)
    if not job.perform(host, supply.paths.helper, name, kind, spec, then=then):
        return False
    supply.made.add(release.key)
    return True


def _reported(move: Callable[..., bool]) -> Callable[..., bool]:
    """A function as pyinfra calls it; a CorralError is printed, and fails the host."""

    @wraps(move)
    def command(state: State, host: Host, *arguments: object) -> bool:  # noqa: ARG001 - pyinfra's
        try:
            return move(host, *arguments)
        except CorralError as error:
            job.report(host, str(error).splitlines())
            return False

    return command


@_reported
def send_first(
    host: Host, missing: Sequence[ReleasePlan], supply: Supply, sharing: Sharing
) -> bool:
    """Send the archives that this host passes on."""
    due = [one for one in missing if sharing.is_first(one.key) and supply.find(one)]
    return all(send(host, release, supply) for release in due)


@_reported
def exchange(host: Host, missing: Sequence[ReleasePlan], supply: Supply, sharing: Sharing) -> bool:
    """Take archives from the hosts that have them, and serve them."""
    by_digest: dict[str, tuple[ReleasePlan, Archive]] = {}
    held: list[dict[str, Any]] = []
    wanted: list[dict[str, Any]] = []
    others: set[str] = set()
    for one in missing:
        members, archive = sharing.members(one.key), supply.find(one)
        if sharing.swarm.name in members and archive:
            by_digest[archive.sha256] = one, archive
            others |= set(members)
            files = held if one.key in supply.there else wanted
            files.append(supply.sent(one, archive))
    if not by_digest:
        return True
    spec = {
        "held": held, "archives": wanted, "paths": supply.paths.model_dump(mode="json"),
        "swarm": sharing.spec(others),
    }  # fmt: skip

    def note(host: Host, answer: dict[str, Any]) -> bool:
        arrived = as_answer(SHARED, answer, where=host.name).arrived
        for one in set(arrived) & by_digest.keys():
            supply.arrived(*by_digest[one])
        return True

    # By the name of the job for weights: only one swarm at a time has its ports.
    return job.perform(host, supply.paths.helper, "fetch", "share", spec, then=note)


@_reported
def ship(host: Host, release: ReleasePlan, supply: Supply) -> bool:
    """Send an archive to a host that lacks the release, and install it there."""
    if release.key in supply.made:
        return True
    if release.key not in supply.there and not send(host, release, supply):
        return False
    spec = {**supply.spec(release), "archive": supply.there[release.key]}
    return job.perform(host, supply.paths.helper, f"build-{release.engine}", "install", spec)


def send(host: Host, release: ReleasePlan, supply: Supply) -> bool:
    """Send an archive to a host; False when it did not arrive, having said why.

    Raises CorralError for one that the store does not have, or not whole.
    """
    archive = _sound(supply.store, release)
    if not transfer.send(supply.store, archive, host, supply.path(release)):
        return False
    supply.arrived(release, archive)
    return True


def _sound(store: ArchiveStore, release: ReleasePlan) -> Archive:
    """The archive of a release; a rotten one is removed. Raises CorralError."""
    where = f"{release.engine} {release.key}"
    archive = store.find(release.engine, release.key)
    if archive is None:
        what = "the host that builds it did not deliver it (see above)"
        raise CorralError(where, what, "fix that host, then run the same deploy again")
    if not store.sound(archive):
        store.remove(archive)
        what = f"its archive in {store.folder} was damaged and is removed"
        raise CorralError(where, what, "run the same deploy again, which makes it anew")
    return archive


@_reported
def check_flags(host: Host, plan: HostPlan, waiting: Sequence[InstancePlan]) -> bool:
    """Ask each release for what it knows; an instance with other flags fails the host."""
    wanted = {instance.release for instance in waiting}
    for release in (release for release in plan.releases if release.key in wanted):
        document = json.dumps({"folder": release.folder})
        known = helper_on(host, plan.paths.helper).ask(["manifest"], MANIFEST, document).flags
        for instance in (one for one in waiting if one.release == release.key):
            refuse_unknown_flags(instance, known, where=host.name)
    return True
