"""Ask the hub and the git server what `corral lock` records. The only module that goes online."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from fnmatch import fnmatch

from httpx2 import HTTPError
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import ModelInfo, RepoSibling

from corral.catalog import Catalog, Engine, Model
from corral.errors import CorralError
from corral.inventory import Host
from corral.lockfile import (
    Lock,
    LockedEngine,
    LockedFile,
    LockedModel,
    resolve_instance,
    wanted_by,
)
from corral.schema import parse
from corral.shards import shard_set_problem

_COMMIT = re.compile(r"[0-9a-f]{40}")


def resolve(lock: Lock, catalog: Catalog, hosts: Iterable[Host]) -> Lock:
    """A lock with fresh entries for all that ``hosts`` use; other entries stay, unless the
    catalog no longer has their model or engine. Raises CorralError when something is not there.
    """
    hosts = list(hosts)
    wanted = wanted_by(hosts, catalog)
    engines = {name: entry for name, entry in lock.engines.items() if name in catalog.engines}
    models = {name: entry for name, entry in lock.models.items() if name in catalog.models}
    for name in sorted(wanted.engines):
        engines[name] = _resolve_engine(name, catalog.engines[name])
    for name, hub_url in sorted(_hubs(hosts, catalog).items()):
        models[name] = _resolve_model(name, catalog.models[name], hub_url)
    return Lock(engines=engines, models=models)


def _hubs(hosts: Iterable[Host], catalog: Catalog) -> dict[str, str]:
    """Which hub to ask for each model: the one that its hosts will fetch from."""
    return {
        resolve_instance(instance, catalog, where=f"{host.name}/{instance.name}")[
            1
        ]: host.spec.hub_url
        for host in hosts
        for instance in host.spec.instances
    }


def _resolve_engine(name: str, engine: Engine) -> LockedEngine:
    if _COMMIT.fullmatch(engine.commit):
        return LockedEngine(requested=engine.commit, commit=engine.commit)
    references = (
        f"refs/tags/{engine.commit}^{{}}",
        f"refs/tags/{engine.commit}",
        f"refs/heads/{engine.commit}",
    )
    where = f"catalog/engines/{name}.toml: commit"
    try:
        done = subprocess.run(
            ["git", "ls-remote", "--", engine.repository, *references],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CorralError(where, str(error), "see that git and the server work") from error
    pairs = (line.split("\t", 1) for line in done.stdout.splitlines())
    found = {reference: commit for commit, reference in pairs}
    for reference in references:
        if reference in found:
            return LockedEngine(requested=engine.commit, commit=found[reference])
    reason = done.stderr.strip() or f"no tag or branch {engine.commit}"
    raise CorralError(
        where, f"{engine.repository}: {reason}", "name a commit, tag or branch there is"
    )


def _resolve_model(name: str, model: Model, hub_url: str) -> LockedModel:
    """One revision for all quants of the model, so that a change of quant needs no new lock."""
    info = _ask(name, model, hub_url)
    return LockedModel(
        repo=model.repo,
        requested=model.revision,
        revision=str(info.sha),
        patterns={quant: entry.files for quant, entry in sorted(model.quants.items())},
        quants={quant: _files(name, model, quant, info) for quant in sorted(model.quants)},
    )


def _ask(name: str, model: Model, hub_url: str) -> ModelInfo:
    where = f"catalog/models/{name}.toml"
    try:
        return HfApi(endpoint=hub_url.rstrip("/")).model_info(
            model.repo, revision=model.revision, files_metadata=True, timeout=30
        )
    except RepositoryNotFoundError as error:
        what = f"{hub_url} has no repository {model.repo} (or it is private)"
        raise CorralError(f"{where}: repo", what, "mend the name") from error
    except RevisionNotFoundError as error:
        what = f"{model.repo} has no revision {model.revision}"
        raise CorralError(f"{where}: revision", what, "mend the revision") from error
    except (HTTPError, OSError) as error:
        what = f"{hub_url} does not answer: {' '.join(str(error).split()) or type(error).__name__}"
        raise CorralError(
            where, what, "see that the hub can be reached, run `corral lock` again"
        ) from error


def _files(name: str, model: Model, quant: str, info: ModelInfo) -> tuple[LockedFile, ...]:
    """Shards in the order of their names, which is the order of their numbers."""
    pattern = model.quants[quant].files
    found = sorted((s for s in info.siblings or [] if fnmatch(s.rfilename, pattern)), key=_path)
    where = f"catalog/models/{name}.toml: quants.{quant}.files"
    if not found:
        raise CorralError(
            where, f"{model.repo} has no file that matches {pattern}", "mend the pattern"
        )
    if problem := shard_set_problem([_path(file) for file in found]):
        what = f"in {model.repo}, {pattern} {problem}"
        raise CorralError(where, what, "mend the pattern, or choose a revision that is whole")
    files = []
    for file in found:
        if file.lfs is None:
            raise CorralError(
                where, f"the hub gives no sha256 for {file.rfilename}", "mend the pattern"
            )
        files.append(_locked(file, where))
    return tuple(files)


def _locked(file: RepoSibling, where: str) -> LockedFile:
    """What a hub says of a file, checked before anything is made of it. Raises CorralError."""
    lfs = file.lfs
    data = {"path": file.rfilename, "size_bytes": lfs and lfs.size, "sha256": lfs and lfs.sha256}
    step = "choose a repository, a revision or a hub_url that can be trusted"
    return parse(LockedFile, data, where=f"{where}: the hub's answer", next_step=step)


def _path(file: object) -> str:
    return str(getattr(file, "rfilename", ""))
