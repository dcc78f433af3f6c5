"""Check out an engine's sources: the planned commit, the planned patches, and nothing else.

git runs as the build user, who owns them. Only a source by ssh is fetched by root, as that needs
root's key, into a repository of root's own.
"""

import os
import shutil
import subprocess
from functools import partial
from pathlib import Path

from corral_host.system.commands import ARIA2_DISK_FULL, PROGRAMS, HostError, disk_full, say
from corral_host.system.unprivileged import as_owner_of

# git never asks for a password, and gives up on a server that sends nothing for a minute.
ENVIRONMENT = {
    "PATH": PROGRAMS, "LC_ALL": "C",
    "GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
    "GIT_SSH_COMMAND": "ssh -o BatchMode=yes -o ConnectTimeout=15",
}  # fmt: skip
PATIENCE = ("-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=60")
UNREACHABLE_SECONDS = 60
FETCHED = "fetched"
OWN_HOME = os.environ.get("HOME", "/root")
ARIA2 = (
    "--no-conf=true", "--no-netrc=true", "--allow-overwrite=true", "--auto-file-renaming=false",
    "--file-allocation=none", "--max-tries=5", "--retry-wait=2", "--connect-timeout=10",
    "--timeout=30", "--console-log-level=warn", "--summary-interval=0", "--enable-color=false",
    "--download-result=hide",
)  # fmt: skip
SHALLOW = 'grep -qsx "$2" "$1/shallow" || echo "$2" >> "$1/shallow"'
# Removes git's locks of a killed build; the build lock ensures that no other build runs.
UNLOCK = 'rm -f -- "$1"/.git/*.lock'


def check_out(source, release, home):
    """Check out. ``source``: a folder kept between builds. ``home``: of its owner, who runs git."""
    git = partial(run_git, home, source)
    done(run(home, "sh", "-c", UNLOCK, "sh", source))
    done(git("init", "--quiet"))
    if git("cat-file", "-e", f"{release['commit']}^{{tree}}").returncode != 0:
        fetch_commit(git, release, source.with_name(FETCHED), home)
    done(git("reset", "--quiet", "--hard", release["commit"]))
    done(git("clean", "--quiet", "-ffdx"))
    for patch in release["artifact"]["patches"]:
        apply(git, patch, release)


def done(process):
    """A command that succeeded. Raises HostError with the standard error of a failed one."""
    if process.returncode != 0:
        said = " ".join(process.stderr.split())
        raise HostError(f"{' '.join(process.args)} failed ({process.returncode}): {said}")
    return process


def fetch_commit(git, release, fetched, home):
    """Fetch a commit. ``fetched``: a temporary repository for what only root can fetch."""
    url, commit = release["artifact"]["source_url"], release["commit"]
    engine = release["engine"]
    say(f"fetching {engine} {commit[:12]} from {url}")
    if url.endswith(".pack"):
        fetch_pack(git, home, url, release)
        return
    if not is_by_ssh(url):
        fetch(git, url, release)
        return
    if fetched.exists():
        shutil.rmtree(fetched)
    fetched.mkdir()
    try:
        own = partial(run_git, OWN_HOME, fetched)
        done(own("init", "--quiet", "--bare"))
        done(own("config", "uploadpack.allowAnySHA1InWant", "true"))
        fetch(own, url, release)
        fetch(git, fetched.as_uri(), release)
    finally:
        shutil.rmtree(fetched)


def fetch_pack(git, home, url, release):
    """Fetch a pack of a bundle: all objects of a commit, each named by its own digest."""
    commit = release["commit"]
    inner = Path(done(git("rev-parse", "--absolute-git-dir")).stdout.strip())
    folder, name = inner / "objects" / "pack", f"pack-{commit}.pack"
    # A pack of a killed build has no index yet, and may be cut.
    fetched = run(home, "aria2c", *ARIA2, "--dir", folder, "--out", name, url)
    if fetched.returncode == ARIA2_DISK_FULL:
        raise disk_full(release["state"])
    if fetched.returncode != 0:
        reason = " ".join(fetched.stdout.split()[-40:])
        raise HostError(
            f"{release['engine']}: {url} cannot be fetched: {reason}",
            "check that `corral bundle serve` runs and that this host reaches it",
        )
    # Its parents are not in it.
    done(run(home, "sh", "-c", SHALLOW, "sh", inner, commit))
    indexed = git("index-pack", folder / name)
    refuse_full(indexed.stderr, release)
    if indexed.returncode != 0 or git("cat-file", "-e", f"{commit}^{{tree}}").returncode != 0:
        raise HostError(
            f"{release['engine']}: {url} is not a pack with commit {commit}: "
            f"{' '.join(indexed.stderr.split())}",
            "`corral bundle verify` the bundle, serve it again",
        )


def is_by_ssh(url):
    """``ssh://host/path`` or ``host:path``, as git takes it."""
    return url.startswith("ssh://") or ("://" not in url and ":" in url.partition("/")[0])


def fetch(git, url, release):
    commit, engine = release["commit"], release["engine"]
    fetched = git(*PATIENCE, "fetch", "--quiet", "--depth=1", "--", url, commit)
    if fetched.returncode == 0:
        return
    reason = " ".join(fetched.stderr.split())
    refuse_full(reason, release)
    if is_reachable(git, url):
        raise HostError(
            f"{engine}: {url} has no commit {commit}, or refuses it: {reason}",
            "check the engine's commit in the catalog, then `corral lock`",
        )
    raise HostError(
        f"{engine}: {url} cannot be reached for commit {commit}: {reason}",
        "check that this host reaches that server, or name another in engine_sources of the "
        "inventory",
    )


def refuse_full(said, release):
    """Raises HostError where git says that the disk is full."""
    if "No space left on device" in said:
        raise disk_full(release["state"])


def is_reachable(git, url):
    try:
        return git(*PATIENCE, "ls-remote", "--quiet", "--", url, "HEAD").returncode == 0
    except subprocess.TimeoutExpired:
        return False


def apply(git, patch, release):
    say(f"applying {patch['name']}")
    applied = git("apply", "--index", "--whitespace=nowarn", "-", stdin=patch["text"])
    if applied.returncode != 0:
        raise HostError(
            f"{release['engine']}: {patch['name']} does not apply to {release['commit'][:12]}: "
            f"{' '.join(applied.stderr.split())}",
            "fix the patch, or drop it from the catalog",
        )


def run_git(home, folder, *arguments, stdin=""):
    timeout = UNREACHABLE_SECONDS if "ls-remote" in arguments else None
    return run(home, "git", "-C", folder, *arguments, stdin=stdin, timeout=timeout)


def run(home, *command, stdin="", timeout=None):
    """Run a command as the owner of a home."""
    return subprocess.run(
        [str(part) for part in command], input=stdin, capture_output=True, text=True,
        errors="replace", env={**ENVIRONMENT, "HOME": str(home)}, timeout=timeout,
        **as_owner_of(home),
    )  # fmt: skip
