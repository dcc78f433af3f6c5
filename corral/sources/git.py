"""Commits on a git server: resolve a tag or branch, check that a pinned commit exists, pack it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from corral_shared.text import printable_line

from corral.errors import CorralError
from corral.names import GIT_PROTOCOLS, is_commit

_LIST_SECONDS = 60
# A server without partial clone sends all files of the commit: tens of megabytes.
_FETCH_SECONDS = 600
_ROOM = "check that the disk has room, then run the same command again"
# Errors for a commit that a server does not have, or does not serve (git 2.20 to 2.51).
_ABSENT = ("not our ref", "couldn't find remote ref", "unadvertised object", "upload-pack: not ")


def commit_at(url: str, reference: str, *, where: str) -> str:
    """The commit of a tag or branch, or ``reference`` itself where it is a commit.

    Raises CorralError where the server does not have it. + where: such as a key of the catalog
    """
    if is_commit(reference):
        _require_commit(url, reference, where)
        return reference
    names = (
        f"refs/tags/{reference}^{{}}",
        f"refs/tags/{reference}",
        f"refs/heads/{reference}",
    )
    done = _git(["ls-remote", "--", url, *names], where, seconds=_LIST_SECONDS)
    commits = _references(done.stdout)
    for name in names:
        if name in commits:
            return commits[name]
    reason = printable_line(done.stderr) or f"no tag or branch {reference}"
    raise CorralError(where, f"{url}: {reason}", "name an existing commit, tag or branch")


def _require_commit(url: str, commit: str, where: str) -> None:
    """Fetch a commit as a build does, without files where the server supports that."""
    with tempfile.TemporaryDirectory(prefix="corral-lock-") as folder:
        _fetch(folder, url, commit, where, "--filter=tree:0")


def pack_commit(url: str, commit: str, pack: Path, work: Path, *, where: str) -> None:
    """Fetch a commit without its history, and write all its objects to one pack.

    + pack: the file; + work: a folder that is emptied, and removed afterwards. Raises CorralError
    """
    shutil.rmtree(work, ignore_errors=True)
    folder = str(work)
    try:
        _fetch(folder, url, commit, where)
        objects = [f"--git-dir={folder}", "pack-objects", "--quiet", "--revs", str(work / "whole")]
        done = _git(objects, where, seconds=_FETCH_SECONDS, stdin=f"{commit}\n")
        if done.returncode != 0:
            what = f"cannot pack {commit} of {url}: {printable_line(done.stderr)}"
            raise CorralError(where, what, _ROOM)
        (work / f"whole-{done.stdout.strip()}.pack").replace(pack)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _fetch(folder: str, url: str, commit: str, where: str, *options: str) -> None:
    """Fetch one commit into a new repository. Raises CorralError."""
    made = _git(["init", "--quiet", "--bare", folder], where, seconds=_LIST_SECONDS)
    if made.returncode != 0:
        what = f"cannot make a repository in {folder}: {printable_line(made.stderr)}"
        raise CorralError(where, what, _ROOM)
    # A named remote: a partial clone needs one to fetch missing files from.
    remote = [f"--git-dir={folder}", "-c", f"remote.origin.url={url}"]
    fetch = ["fetch", "--quiet", "--depth=1", *options, "--no-tags", "origin", commit]
    done = _git([*remote, *fetch], where, seconds=_FETCH_SECONDS)
    if done.returncode == 0:
        return
    errors = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    reason = printable_line("; ".join(errors)) or f"exit code {done.returncode}"
    if any(phrase in reason for phrase in _ABSENT):
        what = f"{url} has no commit {commit}, or does not serve it"
        raise CorralError(where, what, "name an existing commit, or a tag or branch")
    step = "check that it can be reached from here, or name another in engine_sources"
    step = _ROOM if "No space left on device" in reason else step
    raise CorralError(where, f"cannot fetch commit {commit} of {url}: {reason}", step)


def _git(
    arguments: list[str], where: str, *, seconds: float, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["git", *arguments],
            capture_output=True, text=True, errors="replace", timeout=seconds, check=False,
            input=stdin,
            env={
                **os.environ, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0",
                "GIT_ALLOW_PROTOCOL": ":".join(GIT_PROTOCOLS),
            },
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CorralError(where, str(error), "check git and the server") from error


def _references(text: str) -> dict[str, str]:
    """Reference -> commit; other lines of the server are skipped."""
    pairs = (line.partition("\t") for line in text.splitlines())
    return {reference: commit for commit, tab, reference in pairs if tab}
