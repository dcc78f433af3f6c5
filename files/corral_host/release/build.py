"""Build an engine release from a pinned commit; a release without a manifest does not exist.

All that the engine's author decides (fetching, compiling, stripping, linking) runs as a user of its
own.
"""

import re
import shutil
import subprocess
import time
from pathlib import Path

from corral_host.release import image, programs, python_environment
from corral_host.release.archive import pack
from corral_host.release.build_user import SOURCE, build_home, objects_folder, work_folder
from corral_host.release.libraries import wanted_libraries
from corral_host.release.limits import parallel
from corral_host.release.locks import changing_releases, one_build
from corral_host.release.manifest import finish, manifest, now, prove
from corral_host.release.programs import bare_environment
from corral_host.release.sources import check_out
from corral_host.release.taking import take
from corral_host.release.toolchain import check_toolchain, toolkit_libraries
from corral_host.release.whole import release_is_whole
from corral_host.system.commands import PROGRAMS, HostError, say
from corral_host.system.folders import staging_for
from corral_host.system.unprivileged import as_owner_of

LAUNCHERS = tuple(f"-DCMAKE_{name}_COMPILER_LAUNCHER=ccache" for name in ("C", "CXX", "CUDA"))
# Lines of a build's output that say why it failed, by cmake, compilers, linkers and the commands
# that assemble the release.
REASON = re.compile(
    r"^CMake Error|(^|: )(fatal )?error\b|nvcc fatal|No space left on device|Killed signal"
    r"|undefined reference|^(rm|mkdir|strip|cp): "
)
REASON_LINES = 4
# The folder among the objects from which root takes the release.
MADE = "corral-release"
# Text in a reason -> the next step.
REMEDIES = {
    "No space left on device": "free space on this host, run the deploy again; what was "
    "compiled is kept",
    "Killed signal": "a compiler ran out of memory: stop something on this host, run the deploy "
    "again; what was compiled is kept",
    "": "fix the engine's commit, patches or cmake_options, run the deploy again",
}


def build(release):
    """Build and install a release, and pack its archive for the controller."""
    with one_build(release), changing_releases(release):
        objects = objects_folder(release)
        if not release_is_whole(release):
            build_release(release)
        if objects.exists():
            shutil.rmtree(objects)
        return pack(release)


def repack(release):
    """Pack a release that is installed here."""
    with changing_releases(release):
        if not release_is_whole(release):
            raise HostError(
                f"{release['engine']} {release['key']} is not installed here",
                "run the deploy again",
            )
        return pack(release)


def build_release(release):
    kind = release["artifact"]["kind"]
    if kind not in MAKERS:
        raise HostError(
            f"{release['engine']} {release['key']}: the helper makes no {kind}",
            "deploy from the checkout that has it, which brings its helper",
        )
    MAKERS[kind](release)


def fetch_release(release):
    """Install a Python environment: nothing is compiled, nothing of it runs before its proof."""
    began = time.monotonic()
    with staging_for(Path(release["folder"])) as staging:
        found = python_environment.make(release, staging)
        install_proved(release, staging, found, began)
    python_environment.forget(release)


def compile_and_install(release):
    began = time.monotonic()
    found, nvcc = check_toolchain(release)
    source, objects = work_folder(release) / SOURCE, objects_folder(release)
    toolkit, made = toolkit_libraries(nvcc), objects / MADE
    with build_home(release) as home:
        check_out(source, release, home)
        compile_release(source, objects, release, nvcc, home)
        assemble(release, objects / "bin", made, toolkit, home)
    with staging_for(Path(release["folder"])) as staging:
        take(release, made, staging)
        install_proved(release, staging, found, began, toolkit)


def pack_image(release):
    image.make_image(release, build_release, install_proved)


def take_image(release):
    image.own_image(release, install_proved)


# Kind of artifact -> the function that makes it.
MAKERS = {
    "cmake-build": compile_and_install,
    "python-environment": fetch_release,
    "made-image": pack_image,
    "own-image": take_image,
}


def install_proved(release, staging, found, began, toolkit=(), flags=None):
    """Prove a release and install it; ``flags``: of its server, if they are known already."""
    receipt = prove(release, staging, toolkit)
    flags = flags or known_flags(release, staging, toolkit)
    known = {"found": found, "flags": flags, **receipt}
    times = {"built_at": now(), "build_seconds": round(time.monotonic() - began)}
    finish(release, staging, manifest(release, staging, **known, **times), receipt)


def known_flags(release, staging, toolkit):
    with bare_environment(toolkit, release) as environment:
        return programs.flags(release, staging, environment)


def environment_of(home):
    """Environment of a build, without the caller's variables: ccache keys depend on them."""
    return {"PATH": PROGRAMS, "HOME": str(home), "TMPDIR": str(home), "LANG": "C.UTF-8"}


def compile_release(source, objects, release, nvcc, home):
    environment = environment_of(home)
    environment["CCACHE_DIR"] = release["compiler_cache"]
    # Unity files are among the objects, whose folder differs for each key.
    environment["CCACHE_BASEDIR"] = str(source.parent)
    options = [*release["artifact"]["cmake_options"], *LAUNCHERS]
    if nvcc:
        environment = {**environment, "CUDACXX": nvcc, "PATH": f"{Path(nvcc).parent}:{PROGRAMS}"}
        options.append(f"-DCMAKE_CUDA_COMPILER={nvcc}")
    names = release["artifact"]["targets"]
    targets = [part for target in names for part in ("--target", target)]
    compilers = parallel()
    say(f"compiling with {compilers} at a time")
    configure = ["cmake", "-G", "Ninja", "-S", source, "-B", objects, *options]
    run_logged(release, configure, environment, home)
    compiling = ["cmake", "--build", objects, "--parallel", compilers, *targets]
    run_logged(release, compiling, environment, home)


def run_logged(release, command, environment, home):
    """Run a step of a build as the home's owner, with its output in the log.

    Raises HostError with the first reasons in the output.
    """
    reasons = []
    process = subprocess.Popen(
        [str(part) for part in command], env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        **as_owner_of(home),
    )  # fmt: skip
    for line in process.stdout:
        say(line.rstrip("\n"))
        if len(reasons) < REASON_LINES and REASON.search(line):
            reasons.append(line.strip())
    if process.wait() != 0:
        reason = " | ".join(reasons) or f"{command[0]} ended with exit code {process.returncode}"
        remedy = next(text for sign, text in REMEDIES.items() if sign in reason)
        raise HostError(
            f"{release['engine']} {release['key']} could not be built: {reason}. Nothing was "
            "installed",
            remedy,
        )


def assemble(release, built, made, toolkit, home):
    """Copy the stripped programs and the libraries they need into ``made``, as the home's owner."""
    programs = [built / target for target in release["artifact"]["targets"]]
    environment = environment_of(home)

    def run(*command):
        run_logged(release, command, environment, home)

    run("rm", "-rf", made)
    run("mkdir", made, made / "bin", made / "lib")
    for program in programs:
        run("strip", "-o", made / "bin" / program.name, program)
    for name, path in wanted_libraries(programs, toolkit, home):
        run("cp", "--", path, made / "lib" / name)
