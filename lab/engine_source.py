"""Git repositories with the real sources of both engines, taken from source distributions.

A lab host fetches by commit, exactly as production does.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab import ik_source, llama_source, locks
from lab.layout import Layout
from lab.source_tools import commit_tree, git, git_id

_BUMP_REF = "refs/heads/bump"
# Inserted as the first line: all lines move, so the compiler cache cannot reuse the object.
_BUMP_LINE = b"// A second commit, for rehearsing an upgrade.\n"


@dataclass(frozen=True)
class Source:
    """Where an engine's sources come from.

    + commit: of the repository that ``make`` makes below a folder
    + server_file: one of the server's sources, which `bump` changes
    """

    commit: str
    server_file: str
    make: Callable[[Path], Path]


# By the engine's name in the catalog. ik_llama.cpp's commit is not upstream's, so it has an entry
# of the lab's own.
SOURCES: Mapping[str, Source] = {
    "llama.cpp": Source(llama_source.COMMIT, "tools/server/server.cpp", llama_source.make),
    "lab-ik_llama.cpp": Source(ik_source.COMMIT, "examples/server/server.cpp", ik_source.make),
}


def urls(layout: Layout) -> dict[str, str]:
    """Addresses at which the lab's git daemon serves each engine's sources."""
    return {engine: f"git://{layout.controller_address}/{engine}.git" for engine in SOURCES}


def ensure(folder: Path) -> None:
    """Make the repositories ``<folder>/<engine>.git`` that do not exist yet.

    The first call downloads 119 MB by pip; later calls only check. Concurrent calls are safe.
    Raises CorralError if a download, its digest or git fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locks.wait_for_others(folder / "lock", "making the engines' sources"):
        for engine, source in SOURCES.items():
            if not _repository(folder, engine).is_dir():
                _make(folder, engine, source)
            _pack(_repository(folder, engine))


def bump(folder: Path, engine: str) -> str:
    """Commit a change of one source file and return the commit's id, the same every time.

    + folder: as given to `ensure`.  Raises CorralError when git fails.
    """
    with locks.wait_for_others(folder / "lock", "bumping an engine's commit"):
        return _bump(_repository(folder, engine), SOURCES[engine])


def _repository(folder: Path, engine: str) -> Path:
    return folder / f"{engine}.git"


def _make(folder: Path, engine: str, source: Source) -> None:
    partial = folder / "partial"
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir()
    source.make(partial).rename(_repository(folder, engine))
    shutil.rmtree(partial)


def _pack(repository: Path) -> None:
    """Pack the objects once: git would pack loose ones for each fetch, which takes seconds."""
    if not any(repository.glob("objects/pack/*.pack")):
        git(repository, "repack", "-a", "-d", "--quiet")


def _bump(repository: Path, source: Source) -> str:
    index = repository / "bump.index"
    own_index = {"GIT_INDEX_FILE": str(index)}
    text = git(repository, "cat-file", "blob", f"{source.commit}:{source.server_file}")
    blob = git_id(repository, "hash-object", "-w", "--stdin", stdin=_BUMP_LINE + text)
    git(repository, "read-tree", source.commit, environment=own_index)
    entry = f"100644,{blob},{source.server_file}"
    git(repository, "update-index", "--cacheinfo", entry, environment=own_index)
    tree = git_id(repository, "write-tree", environment=own_index)
    index.unlink()
    commit = commit_tree(repository, tree, "Rehearse an upgrade", parents=[source.commit])
    git(repository, "update-ref", _BUMP_REF, commit)
    return commit
