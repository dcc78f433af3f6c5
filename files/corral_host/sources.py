"""An engine's sources at the planned commit, with the planned patches, and nothing else."""

import os
import subprocess

from corral_host.tools import PROGRAMS, HostError, loud, say

# Never asks for a password; gives up on a server that sends nothing for a minute.
ENVIRONMENT = {
    "PATH": PROGRAMS, "HOME": os.environ.get("HOME", "/root"), "LC_ALL": "C",
    "GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
    "GIT_SSH_COMMAND": "ssh -o BatchMode=yes -o ConnectTimeout=15",
}  # fmt: skip
PATIENCE = ("-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=60")
UNREACHABLE_SECONDS = 60


def check_out(source, release):
    """``source``: the engine's folder, kept between builds."""
    source.mkdir(parents=True, exist_ok=True)
    loud("git", "-C", source, "init", "--quiet", env=ENVIRONMENT)
    # Left by a build that was killed; no other one runs, the build's lock sees to that.
    for leftover in (source / ".git").glob("*.lock"):
        leftover.unlink()
    if git(source, "cat-file", "-e", f"{release['commit']}^{{tree}}").returncode != 0:
        fetch_commit(source, release)
    loud("git", "-C", source, "reset", "--quiet", "--hard", release["commit"], env=ENVIRONMENT)
    loud("git", "-C", source, "clean", "--quiet", "-ffdx", env=ENVIRONMENT)
    for patch in release["patches"]:
        apply(source, patch, release)


def fetch_commit(source, release):
    url, commit, engine = release["source_url"], release["commit"], release["engine"]
    say(f"fetching {engine} {commit[:12]} from {url}")
    fetched = git(source, *PATIENCE, "fetch", "--quiet", "--depth=1", "--", url, commit)
    if fetched.returncode == 0:
        return
    reason = " ".join(fetched.stderr.split())
    if "No space left on device" in reason:
        raise HostError(f"{source}: disk full. Next: free space there, run the deploy again")
    if is_reachable(source, url):
        raise HostError(
            f"{engine}: {url} has no commit {commit}, or does not give it: {reason}. "
            "Next: see the engine's commit in the catalog, then `corral lock`"
        )
    raise HostError(
        f"{engine}: {url} cannot be reached for commit {commit}: {reason}. Next: see that this "
        "host reaches that server, or name another in engine_sources of the inventory"
    )


def is_reachable(source, url):
    try:
        return git(source, *PATIENCE, "ls-remote", "--quiet", "--", url, "HEAD").returncode == 0
    except subprocess.TimeoutExpired:
        return False


def apply(source, patch, release):
    say(f"applying {patch['name']}")
    done = git(source, "apply", "--index", "--whitespace=nowarn", "-", stdin=patch["text"])
    if done.returncode != 0:
        raise HostError(
            f"{release['engine']}: {patch['name']} does not apply to {release['commit'][:12]}: "
            f"{' '.join(done.stderr.split())}. Next: mend the patch, or drop it from the catalog"
        )


def git(source, *words, stdin=""):
    timeout = UNREACHABLE_SECONDS if "ls-remote" in words else None
    return subprocess.run(
        ["git", "-C", str(source), *words], input=stdin, capture_output=True, text=True,
        env=ENVIRONMENT, timeout=timeout,
    )  # fmt: skip
