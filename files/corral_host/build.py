"""Build an engine release from a pinned commit; it counts once its manifest is in place."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

from corral_host.state import release_is_whole
from corral_host.tools import (
    PROGRAMS,
    HostError,
    loud,
    output,
    say,
    sha256_of,
    sync,
    write_atomic,
)


def build(release):
    if release_is_whole(release):
        return
    began = time.time()
    work = Path("/var/lib/corral/build") / release["engine"]
    source, objects = work / "source", work / release["key"]
    source.mkdir(parents=True, exist_ok=True)
    fetch_commit(source, release)
    cache = Path(release["compiler_cache"])
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "corral-build.lock", "w") as lock:
        say("waiting for the compiler cache")
        fcntl.flock(lock, fcntl.LOCK_EX)
        compile_release(source, objects, release)
    install_release(objects, release, began)
    shutil.rmtree(objects)


def fetch_commit(source, release):
    git = ("git", "-C", str(source))
    say(f"fetching {release['engine']} {release['commit'][:12]} from {release['source_url']}")
    loud(*git, "init", "--quiet")
    # Left by a build that was killed; no other one runs, the job's unit sees to that.
    for leftover in (source / ".git").glob("*.lock"):
        leftover.unlink()
    loud(*git, "fetch", "--quiet", "--depth=1", release["source_url"], release["commit"])
    loud(
        *git, "-c", "advice.detachedHead=false", "checkout", "--quiet", "--force", release["commit"]
    )
    loud(*git, "clean", "--quiet", "-ffdx")


def compile_release(source, objects, release):
    cache = {"CCACHE_DIR": release["compiler_cache"], "HOME": "/root", "PATH": PROGRAMS}
    environment = {**os.environ, **cache}
    launchers = [
        f"-DCMAKE_{language}_COMPILER_LAUNCHER=ccache" for language in ("C", "CXX", "CUDA")
    ]
    options = [*release["cmake_options"], *launchers]
    loud("cmake", "-G", "Ninja", "-S", source, "-B", objects, *options, env=environment)
    targets = [word for target in release["targets"] for word in ("--target", target)]
    loud("cmake", "--build", objects, "--parallel", str(os.cpu_count()), *targets, env=environment)


def install_release(objects, release, began):
    """Everything into a staging folder, the manifest last, then one rename."""
    final = Path(release["folder"])
    staging = final.with_name(f".staging-{release['key']}")
    for leftover in (staging, final):
        if leftover.exists():
            shutil.rmtree(leftover)
    programs = staging / "bin"
    programs.mkdir(parents=True)
    for target in release["targets"]:
        loud("strip", "-o", programs / target, objects / "bin" / target)
        sync(programs / target)
    prove_version(programs / release["targets"][0], release["commit"])
    files = {f"bin/{path.name}": describe(path) for path in sorted(programs.iterdir())}
    kept = ("engine", "key", "commit", "backend", "cmake_options", "source_url")
    manifest = {
        **{name: release[name] for name in kept},
        "files": files,
        "builder": os.uname().nodename,
        "compiler": output("c++", "--version").splitlines()[0],
        "build_seconds": round(time.time() - began),
    }
    write_atomic(staging / "manifest.json", json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    os.replace(staging, final)
    sync(final.parent)
    say(f"installed {final}")


def describe(path):
    return {"size_bytes": path.stat().st_size, "sha256": sha256_of(path)}


def prove_version(program, commit):
    done = subprocess.run(
        [program, "--version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    found = re.search(r"commit ([0-9a-f]{7,40})", done.stdout)
    if done.returncode != 0 or not found or not commit.startswith(found.group(1)):
        raise HostError(
            f"{program} --version does not name commit {commit[:12]}: {done.stdout.strip()}"
        )
