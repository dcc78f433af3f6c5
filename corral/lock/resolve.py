"""Resolve catalog entries for `corral lock` at the hub and at git servers.

What is locked stays locked (docs/decisions/0005): a branch or tag that moved changes no entry
until somebody asks for that model or engine by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from functools import partial

from corral_shared.names import weights_path_problem
from corral_shared.text import printable_line

from corral.catalog.entries import Catalog, Engine, Model
from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.lock.held import Update, held_commit, held_model
from corral.lock.image import locked_image
from corral.lock.lock_file import (
    Lock,
    LockedEngine,
    LockedFile,
    LockedModel,
    companions_of,
    resolve_instance,
    wanted_by,
)
from corral.lock.safetensors import SUFFIX, check_repository
from corral.lock.shards import shard_set_problem
from corral.schema import parse
from corral.sources.git import commit_at
from corral.sources.hub import HubFile, HubRevision, content, describe

_TRUSTED = "choose a repository, a revision or a hub_url that can be trusted"

# A repository has about ten small files.
_MOST_SMALL_FILES = 100


def resolve(
    lock: Lock,
    catalog: Catalog,
    hosts: Iterable[Host],
    *,
    environments: Mapping[str, LockedEngine] | None = None,
    update: Collection[str] = (),
    note: Callable[[str], None] = lambda _: None,
    command: str = "corral lock",
) -> Lock:
    """A lock with entries for all that ``hosts`` use; entries that suit the catalog stay.

    + environments: the entries of engines that are Python environments (corral.lock.requirements)
    + update: models and engines that are resolved anew, whatever is locked
    + note: called with a sentence for each entry that stays although its branch or tag moved
    + command: for next steps, without --update
    Other entries stay, unless the catalog no longer has their model or engine.
    Raises CorralError when a repository, commit or file is not found.
    """
    hosts = list(hosts)
    wanted = wanted_by(hosts, catalog)
    engines = {name: entry for name, entry in lock.engines.items() if name in catalog.engines}
    models = {name: entry for name, entry in lock.models.items() if name in catalog.models}
    for name in sorted(wanted.engines):
        engine = catalog.engines[name]
        if engine.python:
            engines[name] = (environments or {})[name]
            continue
        if engine.image:
            held = None if name in update else engines.get(name)
            engines[name] = locked_image(name, engine.image, held)
            continue
        urls = _sources(name, engine, hosts, catalog)
        engines[name] = held_commit(
            None if name in update else engines.get(name),
            engine.commit,
            partial(_resolve_engine, name, engine, urls),
            Update(f"engine {name}", command, name, note),
        )
    for name, hubs in sorted(_hubs(hosts, catalog).items()):
        models[name] = held_model(
            None if name in update else models.get(name),
            catalog.models[name],
            partial(_model_of_all, name, hubs),
            Update(f"model {name}", command, name, note),
        )
    return Lock(engines=engines, models=models)


def _hubs(hosts: Iterable[Host], catalog: Catalog) -> dict[str, list[str]]:
    """Model -> hubs that its hosts fetch from."""
    by_model: dict[str, list[str]] = {}
    for host in hosts:
        for instance in host.spec.instances:
            where = f"{host.name}/{instance.name}"
            models = [resolve_instance(instance, catalog, where=where)[1]]
            models += [model for model, _ in companions_of(instance, catalog, where=where)]
            for model in models:
                hubs = by_model.setdefault(model, [])
                if host.spec.hub_url not in hubs:
                    hubs.append(host.spec.hub_url)
    return by_model


def _sources(name: str, engine: Engine, hosts: Iterable[Host], catalog: Catalog) -> list[str]:
    """URLs that the users of an engine fetch it from: its repository, or mirrors of it."""
    users = [
        host
        for host in hosts
        if any(
            resolve_instance(i, catalog, where=host.name)[0] == name for i in host.spec.instances
        )
    ]
    urls = [host.spec.engine_sources.get(name, engine.repository) for host in users]
    return list(dict.fromkeys(urls)) or [engine.repository]


def _resolve_engine(name: str, engine: Engine, sources: Sequence[str] = ()) -> LockedEngine:
    where = f"catalog/engines/{name}.toml: commit"
    urls = list(sources) or [engine.repository]
    commits = {url: commit_at(url, engine.commit, where=where) for url in urls}
    if len(set(commits.values())) > 1:
        listed = ", ".join(f"{commit} at {url}" for url, commit in commits.items())
        what = f"{engine.commit} is not the same commit everywhere: {listed}"
        raise CorralError(where, what, "name a commit by its 40 hex digits")
    data = {"requested": engine.commit, "commit": commits[urls[0]]}
    step = "name another repository, or a commit by its 40 hex digits"
    return parse(LockedEngine, data, where=f"{where}: the answer of {urls[0]}", next_step=step)


def _model_of_all(name: str, hubs: Sequence[str], model: Model) -> LockedModel:
    """The entry of a model. Raises CorralError where hubs differ: each must serve it."""
    entries = {url: _resolve_model(name, model, url) for url in hubs}
    first = entries[hubs[0]]
    if any(entry != first for entry in entries.values()):
        listed = ", ".join(f"{entry.revision} at {url}" for url, entry in entries.items())
        what = f"{model.revision} of {model.repo} is not the same revision everywhere: {listed}"
        step = "name a revision by its 40 hex digits, or one hub_url"
        raise CorralError(f"catalog/models/{name}.toml: revision", what, step)
    return first


def _resolve_model(name: str, model: Model, hub_url: str) -> LockedModel:
    """One revision for all quants of a model, so that a change of quant needs no new lock."""
    revision = describe(name, model, hub_url)
    data = {
        "repo": model.repo,
        "requested": model.revision,
        "revision": revision.sha,
        "patterns": {quant: entry.patterns for quant, entry in sorted(model.quants.items())},
        "quants": {
            quant: _all_files(name, model, quant, revision, hub_url)
            for quant in sorted(model.quants)
        },
    }
    where = f"catalog/models/{name}.toml: the hub's answer"
    return parse(LockedModel, data, where=where, next_step=_TRUSTED)


def _all_files(
    name: str, model: Model, quant: str, revision: HubRevision, hub_url: str
) -> tuple[LockedFile, ...]:
    """Weights first, then the projector and configuration files."""
    weights = (*weights_of(name, model, quant, revision), *_projector(name, model, quant, revision))
    paths = [file.path for file in weights]
    beside = dict(_config(name, model, quant, revision, hub_url, paths))
    if any(path.endswith(SUFFIX) for path in paths):
        contents = {file.path: content for file, content in beside.items()}
        where = f"catalog/models/{name}.toml: quants.{quant}"
        check_repository(paths, contents, repo=model.repo, where=where)
    return (*weights, *beside)


def _config(
    name: str,
    model: Model,
    quant: str,
    revision: HubRevision,
    hub_url: str,
    weights: Sequence[str],
) -> Iterator[tuple[LockedFile, bytes]]:
    """Small files; the hub has no digest of most of them, so each is downloaded once."""
    where = f"catalog/models/{name}.toml: quants.{quant}.config"
    known: dict[str, HubFile] = {}
    for pattern in model.quants[quant].config:
        matching = {f.rfilename: f for f in revision.siblings if fnmatch(f.rfilename, pattern)}
        if not matching:
            what = f"{model.repo} has no file that matches {pattern}"
            raise CorralError(where, what, "correct the pattern")
        known |= matching
    beside = [path for path in sorted(known) if path not in weights]
    if len(beside) > _MOST_SMALL_FILES:
        what = f"its patterns match {len(beside)} files, more than {_MOST_SMALL_FILES}"
        raise CorralError(where, what, "choose narrower patterns")
    for path in beside:
        if problem := weights_path_problem(path):
            what = f"the hub's answer: {printable_line(path)!r} {problem}"
            raise CorralError(where, what, _TRUSTED)
        data = content(model, hub_url, revision.sha, path, where=where)
        yield _small_file(path, data, known[path], where), data


def _small_file(path: str, data: bytes, described: HubFile, where: str) -> LockedFile:
    """A small file by its content, which is the one that the hub describes, where it does."""
    digest = hashlib.sha256(data).hexdigest()
    if described.lfs and described.lfs.get("sha256") != digest:
        what = f"the hub describes {printable_line(path)} with another sha256 than it serves"
        raise CorralError(where, what, _TRUSTED)
    locked = {"path": path, "size_bytes": len(data), "sha256": digest, "kind": "config"}
    return parse(LockedFile, locked, where=f"{where}: the hub's answer", next_step=_TRUSTED)


def weights_of(
    name: str, model: Model, quant: str, revision: HubRevision
) -> tuple[LockedFile, ...]:
    """Shards in the order of their names, which is the order of their numbers.

    Raises CorralError.
    """
    pattern = model.quants[quant].files
    other = model.quants[quant].projector
    matching = (
        file
        for file in revision.siblings
        if fnmatch(file.rfilename, pattern) and not (other and fnmatch(file.rfilename, other))
    )
    shards = sorted(matching, key=lambda file: file.rfilename)
    where = f"catalog/models/{name}.toml: quants.{quant}.files"
    if not shards:
        raise CorralError(
            where, f"{model.repo} has no file that matches {pattern}", "fix the pattern"
        )
    if problem := shard_set_problem([file.rfilename for file in shards]):
        what = f"in {model.repo}, {pattern} {printable_line(problem)}"
        raise CorralError(where, what, "fix the pattern, or choose a revision with all shards")
    files = []
    for file in shards:
        if file.lfs is None:
            what = f"the hub gives no sha256 for {printable_line(file.rfilename)}"
            raise CorralError(where, what, "fix the pattern")
        files.append(_locked(file, where))
    return tuple(files)


def _projector(
    name: str, model: Model, quant: str, revision: HubRevision
) -> tuple[LockedFile, ...]:
    """The projector of a quant, if it names one: one file. Raises CorralError."""
    pattern = model.quants[quant].projector
    if pattern is None:
        return ()
    where = f"catalog/models/{name}.toml: quants.{quant}.projector"
    found = [file for file in revision.siblings if fnmatch(file.rfilename, pattern)]
    if len(found) != 1:
        names = ", ".join(printable_line(file.rfilename) for file in found[:3]) or "none"
        what = f"{model.repo} must have one file that matches {pattern}, it has {names}"
        raise CorralError(where, what, "name one file")
    if found[0].lfs is None:
        what = f"the hub gives no sha256 for {printable_line(found[0].rfilename)}"
        raise CorralError(where, what, "fix the pattern")
    return (_locked(found[0], where, kind="projector"),)


def _locked(file: HubFile, where: str, kind: str | None = None) -> LockedFile:
    """A file as the hub describes it, validated before use. Raises CorralError."""
    lfs = file.lfs or {}
    data = {"path": file.rfilename, "size_bytes": lfs.get("size"), "sha256": lfs.get("sha256")}
    data |= {"kind": kind} if kind else {}
    return parse(LockedFile, data, where=f"{where}: the hub's answer", next_step=_TRUSTED)
