"""The toolchain of a build (compiler, C library, nvcc), compared with the plan before it.

A release's key names its toolchain; with another one the same key would stand for other bytes.
"""

import os
import re
from pathlib import Path

from corral_host.nvidia import nvidia_smi
from corral_host.release.whole import cpu
from corral_host.system.commands import PROGRAMS, HostError, find_program, output
from corral_host.system.kernel import run

CUDA_FOLDER = Path("/usr/local")
ARCHITECTURES = "-DCMAKE_CUDA_ARCHITECTURES="
NATIVE = "native"
NEEDED = ("c++", "cmake", "ninja", "ccache", "git", "strip", "ldd", "zstd")


def check_toolchain(release):
    """This host's toolchain, for the manifest, and the path of nvcc, which is None without CUDA.

    Raises HostError with everything that differs from the plan.
    """
    check_programs(release)
    check_versions(release)
    nvcc = find_nvcc(release) if release["backend"] == "cuda" else None
    found = {
        "compiler": output("c++", "--version").splitlines()[0],
        "c_library": c_library(),
        "cuda": nvcc_version(nvcc) if nvcc else None,
        "cpu": cpu(),
    }
    return found, nvcc


def check_programs(release):
    missing = [name for name in NEEDED if not find_program(name)]
    if missing:
        raise HostError(
            f"{release['engine']}: {', '.join(missing)} cannot be found here. Nothing was built",
            "run the deploy again, which installs what a build needs",
        )


def check_versions(release):
    planned, compiler, library = release["artifact"]["toolchain"], compiler_version(), c_library()
    wrong = []
    if compiler.split(".")[0] != planned["compiler"].split(".")[0]:
        wrong.append(f"c++ is {compiler}, planned is {planned['compiler']}")
    if library != planned["c_library"]:
        wrong.append(f"the C library is {library}, planned is {planned['c_library']}")
    if wrong:
        raise HostError(
            f"{release['engine']}: this host would build another release than the planned one: "
            f"{'; '.join(wrong)}. Nothing was built",
            f"check that this host is {planned['platform']}, or mark another host as builder",
        )


def compiler_version():
    return output("c++", "-dumpfullversion").strip()


def c_library():
    """Version of the C library, such as 2.36; confstr returns ``glibc 2.36``."""
    return os.confstr("CS_GNU_LIBC_VERSION").split()[-1]


def find_nvcc(release):
    """Path of nvcc of the planned release, which must know all architectures of the build."""
    wanted = release["artifact"]["toolchain"]["cuda_toolkit"]
    here = {path: nvcc_version(path) for path in nvcc_paths(wanted)}
    nvcc = next((path for path, version in here.items() if is_release(version, wanted)), None)
    if nvcc is None:
        seen = ", ".join(f"{path} is {version or 'broken'}" for path, version in here.items())
        raise HostError(
            f"{release['engine']}: nvcc of the CUDA toolkit {wanted} is missing here "
            f"({seen or 'there is none at all'}). Nothing was built",
            "install the package "
            f"cuda-toolkit-{wanted.replace('.', '-')}, or mark another host as builder",
        )
    check_architectures(release, nvcc)
    return nvcc


def nvcc_paths(wanted):
    """Paths of nvcc, those in the planned release's folder first."""
    folders = [CUDA_FOLDER / f"cuda-{wanted}" / "bin", CUDA_FOLDER / "cuda" / "bin"]
    paths = [Path(folder) / "nvcc" for folder in [*folders, *PROGRAMS.split(":")]]
    return [str(path) for path in dict.fromkeys(paths) if os.access(path, os.X_OK)]


def toolkit_libraries(nvcc):
    """Folders with the libraries of nvcc's toolkit; none without CUDA."""
    folder = Path(os.path.realpath(nvcc)).parent.parent / "lib64" if nvcc else None
    return [folder] if folder and folder.is_dir() else []


def nvcc_version(path):
    """Version of nvcc, such as 12.8.93; None if it does not run."""
    found = re.search(r"\bV(\d+\.\d+\.\d+)", run(path, "--version").stdout)
    return found.group(1) if found else None


def is_release(version, wanted):
    return version is not None and version.startswith(f"{wanted}.")


def check_architectures(release, nvcc):
    known = set(re.findall(r"compute_(\d+)", output(nvcc, "--list-gpu-arch")))
    unknown = sorted(set(architectures(release)) - known, key=int)
    if unknown:
        raise HostError(
            f"{release['engine']}: nvcc {nvcc_version(nvcc)} ({nvcc}) cannot build for compute "
            f"capability {', '.join(f'{a[:-1]}.{a[-1]}' for a in unknown)}; it knows "
            f"{', '.join(sorted(known, key=int))}. Nothing was built",
            "a CUDA toolkit that "
            "knows these GPUs (see `corral plan`), or leave them out of the inventory",
        )


def architectures(release):
    """Compute capabilities such as 90, of the plan or, for "native", of this host's GPUs."""
    options = release["artifact"]["cmake_options"]
    values = [option[len(ARCHITECTURES) :] for option in options if ARCHITECTURES in option]
    if values == [NATIVE]:
        gpus = nvidia_smi.ask()["gpus"]
        return [g["compute_capability"].replace(".", "") for g in gpus if g["compute_capability"]]
    return re.findall(r"\d+", ";".join(values))
