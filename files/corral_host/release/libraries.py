"""Shared libraries of a release: all come from its own folder, except for the host's own parts."""

import os
import re
import subprocess
from pathlib import Path

from corral_shared.text import printable_line

from corral_host.system.commands import HostError
from corral_host.system.unprivileged import as_owner_of

# Parts of the C library, which must match the host's loader.
C_LIBRARY = re.compile(
    r"(ld-linux.*|linux-vdso|libc|libm|libmvec|libdl|libpthread|librt|libresolv|libutil|libnsl"
    r"|libanl|libthread_db|libBrokenLocale)\.so(\.\d+)?"
)
# Parts of the driver, which must match the host's kernel module.
DRIVER = re.compile(r"(libcuda|libnvidia-.*)\.so.*")
RESOLVED = re.compile(r"^\s*(\S+)(?: => (.*?))?(?: \(0x[0-9a-f]+\))?$")
NOT_FOUND = "not found"


def resolved(program, beside=(), **who):
    """What the loader finds for a program: name -> path, without the host's own parts.

    Includes the libraries of libraries. A static program has none.
    + beside: folders to search beside the loader's own; + who: the user, as arguments of Popen
    """
    path = {"LD_LIBRARY_PATH": ":".join(map(str, beside))} if beside else {}
    done = subprocess.run(
        ["ldd", str(program)], capture_output=True, text=True,
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", **path}, **who,
    )  # fmt: skip
    if "not a dynamic executable" in done.stdout + done.stderr:
        return {}
    if done.returncode != 0:
        raise HostError(f"ldd {program} failed: {' '.join((done.stdout + done.stderr).split())}")
    rows = [parse_line(program, line) for line in done.stdout.splitlines()]
    named = {os.path.basename(name): path or name for name, path in rows}
    return {name: path for name, path in named.items() if not is_of_the_host(name)}


def parse_line(program, line):
    """Name and path in a line of ldd. A program may bring its own loader, which prints anything."""
    found = RESOLVED.match(line)
    if not found:
        raise HostError(f"ldd {program} said {printable_line(line)[:200]!r}. {OWN}", NEXT)
    return found.groups()


def is_of_the_host(name):
    return bool(C_LIBRARY.fullmatch(name) or DRIVER.fullmatch(name))


def wanted_libraries(built, toolkit, home):
    """Libraries of freshly linked programs: (name that the program asks for, path), sorted.

    + toolkit: folders of the CUDA toolkit's libraries, which the loader may not know
    + home: its owner runs the loader
    """
    wanted = {}
    for program in built:
        wanted.update(resolved(program, beside=toolkit, **as_owner_of(home)))
    for name, path in wanted.items():
        if path == NOT_FOUND:
            what = f"{name}, which the build linked, is not found by the loader. {OWN}"
            raise HostError(what, NEXT)
    return sorted(wanted.items())


def prove_self_contained(release_folder, home):
    """Raises HostError for a library that is not from the release, the C library or the driver.

    + home: its owner runs the loader, which the program itself may bring
    """
    for program in sorted((release_folder / "bin").iterdir()):
        for name, path in resolved(program, **as_owner_of(home)).items():
            if path == NOT_FOUND:
                raise HostError(f"{program.name}: {name} is not found. {OWN}", NEXT)
            if (release_folder / "lib").resolve() not in Path(path).resolve().parents:
                raise HostError(f"{program.name}: {name} comes from {path}. {OWN}", NEXT)


OWN = "A release runs from its own folder alone"
NEXT = (
    "check cmake_options of the engine "
    "(CMAKE_INSTALL_RPATH and CMAKE_EXE_LINKER_FLAGS), run the deploy again"
)
