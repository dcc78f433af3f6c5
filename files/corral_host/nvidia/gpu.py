"""GPUs, drivers, CUDA toolkits and memory of this host, as one document."""

import glob
import os
import re
from pathlib import Path

from corral_host.nvidia import nvidia_smi
from corral_host.nvidia.apt_sources import apt_sources
from corral_host.system import kernel
from corral_host.system.commands import digest_or_none, find_program, show
from corral_host.system.kernel import run

LIBRARIES = (
    "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
    "/usr/lib/x86_64-linux-gnu/nvidia/current/libnvidia-ml.so.1",
    "/usr/lib64/libnvidia-ml.so.1",
    "/usr/local/nvidia/lib64/libnvidia-ml.so.1",
    "/usr/lib/x86_64-linux-gnu/libcuda.so.1",
)
COMPILERS = ("/usr/local/cuda*/bin/nvcc", "/usr/bin/nvcc")
# Packages that belong to the driver, if they have the version of its library.
DRIVER_PACKAGES = (
    "nvidia-*", "libnvidia-*", "libcuda1*", "cuda-drivers*", "firmware-nvidia-*",
    "xserver-xorg-video-nvidia*",
)  # fmt: skip
MODULES_LOAD = ("/etc/modules-load.d", "/usr/lib/modules-load.d")
PERSISTENCED = "nvidia-persistenced.service"


def gpu_host(plan, system, systemd):
    """The document. On a host without GPUs the slow questions are left out."""
    buses = kernel.pci_gpus()
    smi = nvidia_smi.ask()
    seen = bool(buses or smi["gpus"] or smi["failure"] not in ("absent", ""))
    nodes = {bus["pci"]: bus["numa_node"] for bus in buses}
    smi["gpus"] = [{**gpu, "numa_node": nodes.get(gpu["pci"])} for gpu in smi["gpus"]]
    library = library_version() or smi.get("nvml_version")
    smi.pop("nvml_version", None)
    setup = plan.get("gpu_setup") or {"sources": {}, "files": ()}
    return {
        **smi,
        "pci_gpus": [bus["pci"] for bus in buses],
        "driver": {
            **kernel.module(),
            "library_version": library,
            "packages": packages(named_packages(setup["sources"].get(system)), library),
        },
        "toolkits": toolkits(),
        "numa_nodes": kernel.numa_nodes(),
        "processors": kernel.cores(),
        "memory": kernel.memory(),
        "uvm_device": kernel.kernel_path("/dev/nvidia-uvm").exists(),
        "uvm_at_boot": uvm_at_boot(),
        "files": {path: digest_or_none(path) for path in setup["files"] if os.path.exists(path)},
        **({"apt_sources": apt_sources()} if seen else {}),
        **(persistenced() if seen and systemd else {}),
        **(kernel.xids() if seen else {}),
    }


def library_version():
    """Version in the file name that libnvidia-ml.so.1 points to: libnvidia-ml.so.580.159.04."""
    for path in LIBRARIES:
        found = re.search(r"\.so\.(\d+\.\d+(?:\.\d+)?)$", os.path.realpath(path))
        if found and os.path.exists(path):
            return found.group(1)
    return None


def named_packages(source):
    """Packages that the catalog names for this distribution."""
    return [*source["driver"]["packages"], *source["toolkit"]["packages"]] if source else []


def packages(named, library):
    """Installed packages of the driver, and the named ones: version, and whether it is held."""
    branch = f"{library.split('.')[0]}." if library else None
    return {
        name: {"version": version, "held": wanted == "hold"}
        for name, version, wanted in installed(*DRIVER_PACKAGES, *named)
        if name in named or (branch and version.split(":")[-1].startswith(branch))
    }


def installed(*patterns):
    """Name, version and wanted state (install or hold) of installed packages."""
    form = "${Package} ${Version} ${db:Status-Want} ${db:Status-Status}\n"
    done = run("dpkg-query", "--show", f"--showformat={form}", *patterns)
    rows = [line.split() for line in done.stdout.splitlines()]
    return [row[:3] for row in rows if len(row) == 4 and row[3] == "installed"]


def toolkits():
    """Every nvcc on the host once, by its real path, with its release."""
    found = [path for pattern in COMPILERS for path in sorted(glob.glob(pattern))]
    used = find_program("nvcc")
    real = dict.fromkeys(os.path.realpath(path) for path in [*([used] if used else []), *found])
    return [
        {"path": path, "version": toolkit_version(path), "used": number == 0 and bool(used)}
        for number, path in enumerate(real)
    ]


def toolkit_version(path):
    """Release of nvcc, such as 12.8; None if it does not run."""
    found = re.search(r"release (\d+\.\d+)", run(path, "--version").stdout)
    return found.group(1) if found else None


def uvm_at_boot():
    files = [file for folder in MODULES_LOAD for file in sorted(Path(folder).glob("*.conf"))]
    texts = [file.read_text() for file in files if file.is_file()]
    lines = [line.strip() for text in texts for line in text.splitlines()]
    return "nvidia-uvm" in lines or "nvidia_uvm" in lines


def persistenced():
    found = show(PERSISTENCED, "LoadState", "ActiveState", "UnitFileState")
    return {
        "persistenced": found["ActiveState"] if found["LoadState"] == "loaded" else "absent",
        "persistenced_at_boot": found["UnitFileState"] in ("enabled", "static"),
    }
