"""Turn a pinned source distribution into a git repository."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from corral.errors import CorralError

BASE_REF = "refs/heads/master"

# A fixed author and date: equal trees make equal commits.
_IDENTITY = {
    f"GIT_{role}_{field}": value
    for role in ("AUTHOR", "COMMITTER")
    for field, value in (
        ("NAME", "Corral lab"),
        ("EMAIL", "lab@corral.invalid"),
        ("DATE", "2026-10-02T00:00:00+00:00"),
    )
}
# The user's own settings could change line ends, and so the commits.
_PLAIN_GIT = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}


@dataclass(frozen=True)
class Distribution:
    """A source distribution in the package index.

    + requirement: name==version; + archive: its file name; + sha256: of the archive, hex
    """

    requirement: str
    archive: str
    sha256: str

    @property
    def name(self) -> str:
        """The name for pip."""
        return self.requirement.partition("==")[0]


def download(distribution: Distribution, folder: Path) -> Path:
    """Download the archive; pip compares its sha256 before it runs anything from it."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{distribution.requirement} --hash=sha256:{distribution.sha256}\n")
    # Not `--no-binary :all:`: pip would build its build tools from source too, which takes minutes.
    arguments = ["--no-deps", "--no-binary", distribution.name, "--require-hashes"]
    arguments += ["--requirement", str(requirements), "--dest", str(folder)]
    with step(f"download {distribution.requirement} (pip also prepares its metadata)"):
        _run([sys.executable, "-m", "pip", "--quiet", "download", *arguments])
    return folder / distribution.archive


def extract(archive: Path, member: PurePosixPath, folder: Path) -> Path:
    """Extract one folder of a tar archive into ``folder``, which is made here."""
    folder.mkdir()
    # Git refuses a repository of another owner, and the archive has its maker's.
    arguments = ["--no-same-owner", f"--strip-components={len(member.parts)}"]
    arguments += [f"--directory={folder}", str(member)]
    with step(f"take {member.name} out of it"):
        _run(["tar", "--extract", f"--file={archive}", *arguments])
    return folder


def bare_repository(path: Path) -> Path:
    """An empty repository that serves any commit by its id."""
    git(path, "init", "--quiet", "--bare", "--initial-branch=master")
    serve_any_commit(path)
    return path


def serve_any_commit(repository: Path) -> None:
    """Let clients fetch commits by id, also those that no branch names."""
    git(repository, "config", "uploadpack.allowAnySHA1InWant", "true")


def commit_tree(repository: Path, tree: str, message: str, *, parents: Sequence[str] = ()) -> str:
    """Make a commit by the lab's own author, at a fixed time, and return its id."""
    options = [part for parent in parents for part in ("-p", parent)]
    return git_id(repository, "commit-tree", tree, *options, "-m", message, environment=_IDENTITY)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Print how long a step took."""
    start_seconds = time.monotonic()
    yield
    print(f"engine source: {title}: {time.monotonic() - start_seconds:.1f} s", flush=True)


def git(
    repository: Path,
    *arguments: str,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
) -> bytes:
    """Output of git in a bare repository; ``environment`` is added to this process's own."""
    added = {**_PLAIN_GIT, **(environment or {})}
    return _run(["git", f"--git-dir={repository}", *arguments], stdin, added)


def git_id(
    repository: Path,
    *arguments: str,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
) -> str:
    """The id that a git command prints."""
    return git(repository, *arguments, stdin=stdin, environment=environment).decode().strip()


def _run(
    arguments: Sequence[str], stdin: bytes = b"", environment: Mapping[str, str] | None = None
) -> bytes:
    whole = {**os.environ, **(environment or {})}
    try:
        result = subprocess.run(arguments, input=stdin, env=whole, capture_output=True, check=True)
    except FileNotFoundError as error:
        what = f"{arguments[0]} is not installed"
        raise CorralError("lab: engine source", what, f"apt-get install {arguments[0]}") from error
    except subprocess.CalledProcessError as error:
        message = error.stderr.decode(errors="replace").strip()
        raise CorralError(
            "lab: engine source",
            f"`{' '.join(arguments[:4])} ...` exited {error.returncode}: {message}",
            "check that pip works and reaches its index, then run this again",
        ) from error
    return result.stdout
