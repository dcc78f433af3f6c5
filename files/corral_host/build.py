"""Build an engine release from a pinned commit; it counts once its manifest is in place."""

import re
import shutil
import subprocess
import time
from pathlib import Path

from corral_host.archive import pack
from corral_host.folders import staging_for
from corral_host.libraries import collect
from corral_host.limits import parallel
from corral_host.locks import changing_releases, one_build
from corral_host.programs import bare_environment, flags
from corral_host.release import finish, manifest, now, prove
from corral_host.sources import check_out
from corral_host.state import release_is_whole
from corral_host.toolchain import check_toolchain, toolkit_libraries
from corral_host.tools import PROGRAMS, HostError, loud, say

LAUNCHERS = tuple(f"-DCMAKE_{name}_COMPILER_LAUNCHER=ccache" for name in ("C", "CXX", "CUDA"))
# A line of a build's output that says why it ends, of cmake, compilers and linkers.
TELLING = re.compile(
    r"^CMake Error|(^|: )(fatal )?error\b|nvcc fatal|No space left on device|Killed signal"
    r"|undefined reference"
)
TELLING_LINES = 4
SOURCE = "source"
# What a reason says -> what to do about it.
REMEDIES = {
    "No space left on device": "free space on this host, run the deploy again; what was "
    "compiled is kept",
    "Killed signal": "a compiler ran out of memory: stop something on this host, run the deploy "
    "again; what was compiled is kept",
    "": "mend the engine's commit, patches or cmake_options, run the deploy again",
}


def build(release):
    """Leaves the release installed and its archive for the controller; gives both."""
    with one_build(release), changing_releases(release):
        objects = work_folder(release) / release["key"]
        if not release_is_whole(release):
            build_release(release, objects)
        if objects.exists():
            shutil.rmtree(objects)
        return pack(release)


def repack(release):
    """The archive of a release that is installed here."""
    with changing_releases(release):
        if not release_is_whole(release):
            raise HostError(
                f"{release['engine']} {release['key']} is not installed here. "
                "Next: run the deploy again"
            )
        return pack(release)


def work_folder(release):
    return Path(release["state"]) / "build" / release["engine"]


def build_release(release, objects):
    began = time.monotonic()
    found, nvcc = check_toolchain(release)
    source, toolkit = work_folder(release) / SOURCE, toolkit_libraries(nvcc)
    check_out(source, release)
    compile_release(source, objects, release, nvcc)
    with staging_for(Path(release["folder"])) as staging:
        assemble(release, objects / "bin", staging, toolkit)
        receipt = prove(release, staging, toolkit)
        known = {"found": found, "flags": known_flags(release, staging, toolkit), **receipt}
        times = {"built_at": now(), "build_seconds": round(time.monotonic() - began)}
        finish(release, staging, manifest(release, staging, **known, **times), receipt)


def known_flags(release, staging, toolkit):
    with bare_environment(toolkit) as environment:
        return flags(release, staging, environment)


def compile_release(source, objects, release, nvcc):
    # No flags of the caller, and always the language of a systemd unit: ccache tells them apart.
    environment = {"PATH": PROGRAMS, "HOME": "/root", "LANG": "C.UTF-8"}
    environment["CCACHE_DIR"] = release["compiler_cache"]
    # Unity files lie among the objects, whose folder is another for each key.
    environment["CCACHE_BASEDIR"] = str(source.parent)
    options = [*release["cmake_options"], *LAUNCHERS]
    if nvcc:
        environment = {**environment, "CUDACXX": nvcc, "PATH": f"{Path(nvcc).parent}:{PROGRAMS}"}
        options.append(f"-DCMAKE_CUDA_COMPILER={nvcc}")
    targets = [word for target in release["targets"] for word in ("--target", target)]
    compilers = parallel()
    say(f"compiling with {compilers} at a time")
    told(release, ["cmake", "-G", "Ninja", "-S", source, "-B", objects, *options], environment)
    told(release, ["cmake", "--build", objects, "--parallel", compilers, *targets], environment)


def told(release, command, environment):
    """Run a part of a build, its output to the log; a failure says the first reasons in it."""
    reasons = []
    process = subprocess.Popen(
        [str(word) for word in command], env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip
    for line in process.stdout:
        say(line.rstrip("\n"))
        if len(reasons) < TELLING_LINES and TELLING.search(line):
            reasons.append(line.strip())
    if process.wait() != 0:
        reason = " | ".join(reasons) or f"{command[0]} ended with exit code {process.returncode}"
        remedy = next(text for sign, text in REMEDIES.items() if sign in reason)
        raise HostError(
            f"{release['engine']} {release['key']} could not be built: {reason}. Nothing was "
            f"installed. Next: {remedy}"
        )


def assemble(release, built, staging, toolkit):
    """Stripped programs, and the libraries that they need."""
    programs = [built / target for target in release["targets"]]
    (staging / "bin").mkdir()
    for program in programs:
        loud("strip", "-o", staging / "bin" / program.name, program)
    collect(programs, staging / "lib", toolkit)
