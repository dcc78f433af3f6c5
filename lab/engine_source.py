"""A git repository with the real llama.cpp source, taken from a source distribution.

The `llama-cpp-python` source distribution carries the git module it was made from, a shallow
repository at one llama.cpp commit, so a lab host can fetch by commit exactly as production does.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from corral.errors import CorralError

COMMIT = "0c1e57098bba43ac29e6e3b677cdceebdd22334f"

_DISTRIBUTION = "llama-cpp-python==0.3.36"
_ARCHIVE = "llama_cpp_python-0.3.36.tar.gz"
_ARCHIVE_SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
_GIT_MODULE = PurePosixPath("llama_cpp_python-0.3.36/.git/modules/vendor/llama.cpp")

_BASE_REF = "refs/heads/master"
_BUMP_REF = "refs/heads/bump"
_BUMP_FILE = "README.md"
_BUMP_LINE = b"\nA second commit, for rehearsing an upgrade.\n"
_BUMP_IDENTITY = {
    f"GIT_{role}_{field}": value
    for role in ("AUTHOR", "COMMITTER")
    for field, value in (
        ("NAME", "Corral lab"),
        ("EMAIL", "lab@corral.invalid"),
        ("DATE", "2026-10-02T00:00:00+00:00"),
    )
}


def ensure(cache: Path) -> Path:
    """Return `<cache>/engine-source/llama.cpp.git`, a bare repository that serves `COMMIT`.

    The first call downloads 77 MB by pip; later calls only look. Two calls at once are safe.
    Raises CorralError when the download, its digest or git fails.
    """
    repository = cache / "engine-source" / "llama.cpp.git"
    if repository.is_dir():
        return repository
    repository.parent.mkdir(parents=True, exist_ok=True)
    with _lock(repository.parent / "lock"):
        if not repository.is_dir():
            _make(repository)
    return repository


def bump(repository: Path) -> str:
    """Make a commit on top of `COMMIT` and return its id, which is the same every time.

    + repository: from `ensure`.  Raises CorralError when git fails.
    """
    with _lock(repository.parent / "lock"):
        return _bump(repository)


def _bump(repository: Path) -> str:
    index = repository / "bump.index"
    environment = {**os.environ, **_BUMP_IDENTITY, "GIT_INDEX_FILE": str(index)}
    text = _git(repository, "cat-file", "blob", f"{COMMIT}:{_BUMP_FILE}")
    blob = _git_id(repository, "hash-object", "-w", "--stdin", stdin=text + _BUMP_LINE)
    _git(repository, "read-tree", COMMIT, environment=environment)
    entry = f"100644,{blob},{_BUMP_FILE}"
    _git(repository, "update-index", "--cacheinfo", entry, environment=environment)
    tree = _git_id(repository, "write-tree", environment=environment)
    index.unlink()
    arguments = ("commit-tree", tree, "-p", COMMIT, "-m", "Rehearse an upgrade")
    commit = _git_id(repository, *arguments, environment=environment)
    _git(repository, "update-ref", _BUMP_REF, commit)
    return commit


def _make(repository: Path) -> None:
    partial = repository.with_name("partial")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir()
    with _step(f"download {_DISTRIBUTION} (pip also prepares its metadata)"):
        archive = _download(partial)
    with _step("take the git module out of it"):
        module = _extract_module(archive, partial / "module")
    with _step("make a bare repository"):
        made = _bare_repository(module, partial / repository.name)
    made.rename(repository)
    shutil.rmtree(partial)


def _download(folder: Path) -> Path:
    """Download the archive; pip compares its sha256 before it runs anything from it."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{_DISTRIBUTION} --hash=sha256:{_ARCHIVE_SHA256}\n")
    # Not `--no-binary :all:`, with which pip builds its build tools from source too: minutes.
    arguments = ["--no-deps", "--no-binary", "llama-cpp-python", "--require-hashes"]
    arguments += ["--requirement", str(requirements), "--dest", str(folder)]
    _run([sys.executable, "-m", "pip", "--quiet", "download", *arguments])
    return folder / _ARCHIVE


def _extract_module(archive: Path, folder: Path) -> Path:
    folder.mkdir()
    depth = len(_GIT_MODULE.parts)
    # Git refuses a repository of another owner, and the archive names its maker's.
    arguments = ["--no-same-owner", f"--strip-components={depth}", f"--directory={folder}"]
    _run(["tar", "--extract", f"--file={archive}", *arguments, str(_GIT_MODULE)])
    return folder


def _bare_repository(module: Path, path: Path) -> Path:
    # The module's work tree is not here, and its remotes and includes are its maker's own.
    (module / "config").write_text("[core]\n\trepositoryformatversion = 0\n\tbare = true\n")
    _run(["git", "init", "--quiet", "--bare", "--initial-branch=master", str(path)])
    for repository in (module, path):
        _git(repository, "config", "uploadpack.allowAnySHA1InWant", "true")
    source = module.absolute().as_uri()
    _git(path, "fetch", "--quiet", "--depth=1", source, f"{COMMIT}:{_BASE_REF}")
    return path


@contextmanager
def _step(title: str) -> Iterator[None]:
    start_seconds = time.monotonic()
    yield
    print(f"engine source: {title}: {time.monotonic() - start_seconds:.1f} s", flush=True)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _git(
    repository: Path,
    *arguments: str,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
) -> bytes:
    return _run(["git", f"--git-dir={repository}", *arguments], stdin, environment)


def _git_id(
    repository: Path,
    *arguments: str,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
) -> str:
    return _git(repository, *arguments, stdin=stdin, environment=environment).decode().strip()


def _run(
    arguments: Sequence[str], stdin: bytes = b"", environment: Mapping[str, str] | None = None
) -> bytes:
    try:
        result = subprocess.run(
            arguments, input=stdin, env=environment, capture_output=True, check=True
        )
    except FileNotFoundError as error:
        what = f"{arguments[0]} is not installed"
        raise CorralError("lab: engine source", what, f"apt-get install {arguments[0]}") from error
    except subprocess.CalledProcessError as error:
        message = error.stderr.decode(errors="replace").strip()
        raise CorralError(
            "lab: engine source",
            f"`{' '.join(arguments[:4])} ...` exited {error.returncode}: {message}",
            "see that pip works and reaches its index, then run this again",
        ) from error
    return result.stdout
