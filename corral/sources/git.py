"""Ask a git server for a commit: what a tag or branch names, or whether it has a pinned one."""

from __future__ import annotations

import os
import subprocess
import tempfile

from corral_shared.text import printable_line

from corral.errors import CorralError
from corral.names import GIT_PROTOCOLS, is_commit

_LIST_SECONDS = 60
# A server that cannot leave files out sends those of one commit: tens of megabytes.
_FETCH_SECONDS = 600
# What servers say of a commit that they do not have, or do not give (git 2.20 to 2.51).
_ABSENT = ("not our ref", "couldn't find remote ref", "unadvertised object", "upload-pack: not ")


def commit_at(url: str, reference: str, *, where: str) -> str:
    """The commit of a tag or branch, or a commit itself, if the server has it. Raises CorralError.

    + where: asks for it, such as a key of the catalog
    """
    if is_commit(reference):
        _prove(url, reference, where)
        return reference
    names = (
        f"refs/tags/{reference}^{{}}",
        f"refs/tags/{reference}",
        f"refs/heads/{reference}",
    )
    done = _git(["ls-remote", "--", url, *names], where, seconds=_LIST_SECONDS)
    found = _references(done.stdout)
    for name in names:
        if name in found:
            return found[name]
    reason = printable_line(done.stderr) or f"no tag or branch {reference}"
    raise CorralError(where, f"{url}: {reason}", "name a commit, tag or branch there is")


def _prove(url: str, commit: str, where: str) -> None:
    """As a build fetches it, but without files where the server can leave them out."""
    with tempfile.TemporaryDirectory(prefix="corral-lock-") as folder:
        _git(["init", "--quiet", "--bare", folder], where, seconds=_LIST_SECONDS)
        # Under a name: without files there must be somewhere to fetch them from.
        remote = ["-C", folder, "-c", f"remote.origin.url={url}"]
        words = ["fetch", "--quiet", "--depth=1", "--filter=tree:0", "--no-tags", "origin", commit]
        done = _git([*remote, *words], where, seconds=_FETCH_SECONDS)
    if done.returncode == 0:
        return
    said = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    reason = printable_line("; ".join(said)) or f"exit code {done.returncode}"
    if any(word in reason for word in _ABSENT):
        what = f"{url} has no commit {commit}, or does not give it"
        raise CorralError(where, what, "name one that is there, or a tag or branch")
    step = "see that it can be reached from here, or name another in engine_sources"
    raise CorralError(where, f"{url} does not say whether it has {commit}: {reason}", step)


def _git(words: list[str], where: str, *, seconds: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["git", *words],
            capture_output=True, text=True, errors="replace", timeout=seconds, check=False,
            stdin=subprocess.DEVNULL,
            env={
                **os.environ, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0",
                "GIT_ALLOW_PROTOCOL": ":".join(GIT_PROTOCOLS),
            },
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CorralError(where, str(error), "see that git and the server work") from error


def _references(text: str) -> dict[str, str]:
    """Reference -> commit. A server may say more than lines of these."""
    pairs = (line.partition("\t") for line in text.splitlines())
    return {reference: commit for commit, tab, reference in pairs if tab}
