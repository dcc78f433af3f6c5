"""The real ik_llama.cpp sources as one commit of the lab's own.

`ik-llama-cpp-python` is packed without git, and without upstream's file that writes the commit into
the program.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from corral.errors import CorralError
from lab.source_tools import (
    BASE_REF,
    Distribution,
    bare_repository,
    commit_tree,
    download,
    extract,
    git,
    git_id,
    step,
)

# Upstream's commit is 8337e4cd3861406fc04e0854b1409cd1b027fbc9; `make` makes this one.
COMMIT = "f309c556468ccc26335f1232a18e46e57007a1c1"

_DISTRIBUTION = Distribution(
    requirement="ik-llama-cpp-python==0.1.5",
    archive="ik_llama_cpp_python-0.1.5.tar.gz",
    sha256="33c67eb99e4dcab5e611050433243815709b8b3067753f9ce18375013cf002ad",
)
_SOURCES = PurePosixPath("ik_llama_cpp_python-0.1.5/vendor/ik_llama.cpp")
# common/CMakeLists.txt runs this file in the root of the sources.
_MISSING_FILE = "common/cmake/build-info-gen-cpp.cmake"
_MISSING_TEXT = """\
include(${CMAKE_CURRENT_SOURCE_DIR}/cmake/build-info.cmake)
set(COMMON ${CMAKE_CURRENT_SOURCE_DIR}/common)
configure_file(${COMMON}/build-info.cpp.in ${COMMON}/build-info.cpp)
"""


def make(folder: Path) -> Path:
    """A bare repository below ``folder`` with `COMMIT`. Downloads 42 MB. Raises CorralError."""
    sources = extract(download(_DISTRIBUTION, folder), _SOURCES, folder / "sources")
    (sources / _MISSING_FILE).parent.mkdir()
    (sources / _MISSING_FILE).write_text(_MISSING_TEXT)
    with step("make a commit of it"):
        repository = bare_repository(folder / "bare.git")
        commit = commit_sources(repository, sources)
    if commit != COMMIT:
        what = f"{_DISTRIBUTION.requirement} became commit {commit}, {COMMIT} is pinned"
        raise CorralError(
            "lab: engine source", what, "report it, with the version of git (git --version)"
        )
    return repository


def commit_sources(repository: Path, sources: Path) -> str:
    """Commit a folder as it is, and return the id."""
    # With force: upstream has files that its own .gitignore would leave out.
    git(repository, f"--work-tree={sources}", "add", "--all", "--force")
    tree = git_id(repository, "write-tree")
    commit = commit_tree(repository, tree, f"Sources of {_DISTRIBUTION.requirement}")
    git(repository, "update-ref", BASE_REF, commit)
    return commit
