"""corral.lock: the exact commit, revision, size and sha256 of everything a deploy installs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from corral.catalog.entries import Catalog, Engine, Model
from corral.catalog.inheritance import SourcedProfile, with_overrides
from corral.errors import CorralError
from corral.files import read_small, write_atomic
from corral.inventory.hosts import Host, InstanceSpec
from corral.names import Repository, WeightsPath
from corral.schema import Frozen, parse_json

# A pebibyte: no file of weights is as large, and sums of sizes stay exact in JSON.
MOST_FILE_BYTES = 2**50
# The largest corral.lock; a thousand models take a few megabytes.
_MOST_BYTES = 64 * 1024**2


class LockedFile(Frozen):
    """One file of a model: its path in the repository, size and digest.

    + kind: weights if None
    """

    path: WeightsPath
    size_bytes: int = Field(gt=0, lt=MOST_FILE_BYTES)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    kind: Literal["projector", "config"] | None = None


class LockedEngine(Frozen):
    """An engine's catalog entry, resolved to a commit.

    + commit: of what is not built, the first 40 digits of the digest below
    + requirements_sha256: of its requirements file (corral.lock.requirements)
    + image_sha256, image_bytes: of an image (corral.lock.image); its size is None where the
      catalog names the digest, so that nobody read the file
    """

    requested: str
    commit: str = Field(pattern=r"^[0-9a-f]{40}$")
    requirements_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    image_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    image_bytes: int | None = Field(default=None, gt=0, lt=2**40)

    @property
    def origin(self) -> str:
        """How the release is made, to compare it with the catalog."""
        made = {"python": self.requirements_sha256, "image": self.image_sha256}
        return next((name for name, digest in made.items() if digest), "build")


class LockedModel(Frozen):
    """A model's catalog entry, resolved to a revision and files.

    + quants: quant -> files in order
    """

    repo: Repository
    requested: str
    revision: str = Field(pattern=r"^[0-9a-f]{40}$")
    patterns: dict[str, str] = Field(description="quant -> patterns of its files, as requested")
    quants: dict[str, tuple[LockedFile, ...]]

    @model_validator(mode="after")
    def _paths_do_not_collide(self) -> LockedModel:
        """All quants of a model are written below one folder."""
        files_by_path: dict[str, LockedFile] = {}
        for files in self.quants.values():
            if len({file.path for file in files}) < len(files):
                raise ValueError("a quant names a file twice")
            for file in files:
                if files_by_path.setdefault(file.path, file) != file:
                    raise ValueError(f"{file.path!r} has two sizes or digests")
        for path in files_by_path:
            if folder := next((up for up in _folders(path) if up in files_by_path), None):
                raise ValueError(f"{folder!r} is a file, and the folder of {path!r}")
        return self


def _folders(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


class Lock(Frozen):
    """The contents of corral.lock."""

    version: Literal[1] = 1
    engines: dict[str, LockedEngine] = Field(default_factory=dict)
    models: dict[str, LockedModel] = Field(default_factory=dict)


class Wanted(Frozen):
    """Engines and (model, quant) pairs that the instances of some hosts need from the lock."""

    engines: frozenset[str]
    quants: frozenset[tuple[str, str]]


def instance_profile(
    spec: InstanceSpec, catalog: Catalog, *, where: str, inventory: str = ""
) -> SourcedProfile:
    """The profile of an instance with its overrides. Raises CorralError.

    + where: host and instance; + inventory: its file, if known
    """
    base = catalog.sourced_profile(spec.profile, where=where)
    file = inventory or "the inventory"
    own, next_step = f"{file}: {where}: overrides", f"edit {file}"
    for key in ("model", "quant", "engine"):
        if key in spec.overrides and getattr(spec, key) is not None:
            what = f'the instance has "{key}", and its overrides have it, too'
            raise CorralError(own, what, f"{next_step}: keep one of them")
    return with_overrides(base, spec.overrides, where=own, next_step=next_step)


def resolve_instance(
    spec: InstanceSpec, catalog: Catalog, *, where: str, inventory: str = ""
) -> tuple[str, str, str]:
    """Engine, model and quant of an instance, each in the catalog. Raises CorralError."""
    profile = instance_profile(spec, catalog, where=where, inventory=inventory).profile
    origin = f"{where}: profile {spec.profile}"
    engine, model, quant = (
        spec.engine or profile.engine,
        spec.model or profile.model,
        spec.quant or profile.quant,
    )
    own = {key for key in ("engine", "model") if getattr(spec, key)} | spec.overrides.keys()
    catalog.engine(engine, where=where if "engine" in own else origin)
    known = catalog.model(model, where=where if "model" in own else origin).quants
    if quant not in known:
        what = f'model {model} has no quant "{quant}" (known: {", ".join(sorted(known))})'
        raise CorralError(where, what, f"add it to catalog/models/{model}.toml, or name another")
    return engine, model, quant


def companions_of(
    spec: InstanceSpec, catalog: Catalog, *, where: str, inventory: str = ""
) -> tuple[tuple[str, str], ...]:
    """Model and quant of each file beside an instance's model. Raises CorralError."""
    profile = instance_profile(spec, catalog, where=where, inventory=inventory).profile
    for model, quant in profile.companions:
        origin = f"{where}: profile {spec.profile}"
        known = catalog.model(model, where=origin).quants
        if quant not in known:
            what = f'model {model} has no quant "{quant}" (known: {", ".join(sorted(known))})'
            step = f"add it to catalog/models/{model}.toml, or name another"
            raise CorralError(origin, what, step)
    return profile.companions


def wanted_by(hosts: Iterable[Host], catalog: Catalog) -> Wanted:
    """Engines and (model, quant) pairs that ``hosts`` use. Raises CorralError for unknown names."""
    hosts = list(hosts)
    resolved = [
        resolve_instance(
            instance, catalog, where=f"{host.name}/{instance.name}", inventory=host.origin
        )
        for host in hosts
        for instance in host.spec.instances
    ]
    beside = [
        pair
        for host in hosts
        for instance in host.spec.instances
        for pair in companions_of(
            instance, catalog, where=f"{host.name}/{instance.name}", inventory=host.origin
        )
    ]
    return Wanted(
        engines=frozenset(engine for engine, _, _ in resolved),
        quants=frozenset([*((model, quant) for _, model, quant in resolved), *beside]),
    )


def read_lock(path: Path) -> Lock:
    """Read corral.lock; an absent file is an empty lock. Raises CorralError for a damaged one."""
    step = "git checkout corral.lock"
    if not path.exists():
        return Lock()
    text = read_small(path, most_bytes=_MOST_BYTES, next_step=step)
    return parse_json(
        Lock, text, where=path.name, next_step=f"{step}, or remove it and run `corral lock`"
    )


def write_lock(path: Path, lock: Lock) -> None:
    """Write corral.lock atomically, in a stable order, one value a line. Raises CorralError."""
    data = lock.model_dump(mode="json", exclude_none=True)
    text = json.dumps(data, indent=2, sort_keys=True) + "\n"
    write_atomic(path, text, next_step="free disk space there, then run `corral lock` again")


def lock_step(inventory: str) -> str:
    """The next step where the lock lacks an entry of a host; ``inventory``: its file, if known.

    Without a file `corral lock` skips examples and inventories elsewhere: nothing would change.
    """
    return f"run `corral lock {inventory or 'INVENTORY'}`, read the diff, commit it"


def locked_engine(
    lock: Lock, catalog: Catalog, name: str, *, where: str, inventory: str = ""
) -> LockedEngine:
    """The lock's entry for an engine. Raises CorralError where it is missing or stale.

    + inventory: see ``lock_step``
    """
    problem = _engine_problem(lock, name, catalog.engines[name])
    if problem:
        raise CorralError(where, problem, lock_step(inventory))
    return lock.engines[name]


def locked_shards(
    lock: Lock, catalog: Catalog, model: str, quant: str, *, where: str, inventory: str = ""
) -> tuple[LockedModel, tuple[LockedFile, ...]]:
    """The lock's entry for a quant. Raises CorralError where it is missing or stale.

    + inventory: see ``lock_step``
    """
    problem = _quant_problem(lock, model, quant, catalog.models[model])
    if problem:
        raise CorralError(where, problem, lock_step(inventory))
    entry = lock.models[model]
    return entry, entry.quants[quant]


def stale(lock: Lock, catalog: Catalog, wanted: Wanted) -> list[str]:
    """One sentence for each entry that is missing or no longer matches the catalog."""
    problems = [
        _engine_problem(lock, name, catalog.engines[name]) for name in sorted(wanted.engines)
    ]
    problems += [
        _quant_problem(lock, model, quant, catalog.models[model])
        for model, quant in sorted(wanted.quants)
    ]
    return [problem for problem in problems if problem]


def _engine_problem(lock: Lock, name: str, engine: Engine) -> str | None:
    entry = lock.engines.get(name)
    if entry is None:
        return f"corral.lock has no entry for engine {name}"
    origin = "python" if engine.python else "image" if engine.image else "build"
    if entry.requested != engine.pinned or entry.origin != origin:
        return (
            f"corral.lock is stale: engine {name} was locked for {entry.requested}, "
            f"the catalog requests {engine.pinned}"
        )
    return None


def _quant_problem(lock: Lock, name: str, quant: str, model: Model) -> str | None:
    entry = lock.models.get(name)
    if entry is None or quant not in entry.quants:
        return f"corral.lock has no entry for model {name}, quant {quant}"
    requested, locked = f"{model.repo}@{model.revision}", f"{entry.repo}@{entry.requested}"
    if requested != locked:
        what = f"model {name} was locked for {locked}, the catalog requests {requested}"
        return f"corral.lock is stale: {what}"
    patterns = model.quants[quant].patterns
    locked_patterns = entry.patterns.get(quant)
    if locked_patterns != patterns:
        what = f"{name} {quant} was locked for {locked_patterns}, the catalog requests {patterns}"
        return f"corral.lock is stale: {what}"
    return None
