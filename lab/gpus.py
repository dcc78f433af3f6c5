"""Stand-in GPUs: the files by which a lab host seems to have cards and their driver.

The kernel's own files cannot be changed in a container, so the helper reads a file below
``/etc/corral-lab/kernel`` in place of one in /proc, /sys and /dev.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lab.descriptions import Gpu

KERNEL = "etc/corral-lab/kernel"
MODULE_FILE = f"{KERNEL}/proc/driver/nvidia/version"
UVM_FILE = f"{KERNEL}/dev/nvidia-uvm"
_FILES = Path(__file__).parent / "files"


@dataclass(frozen=True)
class File:
    """A file of a lab host; its path is relative to the root."""

    path: str
    text: str
    mode: int = 0o644


def writing(files: Iterable[File]) -> str:
    """A script that writes the files on a host that runs."""
    return "\n".join(
        f"mkdir -p $(dirname /{file.path}) && cat > /{file.path} <<'END'\n{file.text}END\n"
        f"chmod {file.mode:o} /{file.path}"
        for file in files
    )


def nvidia_smi(path: str = "usr/local/bin/nvidia-smi") -> File:
    """The program that comes with the driver."""
    return File(path, (_FILES / "nvidia-smi").read_text(), 0o755)


def cards(gpus: tuple[Gpu, ...]) -> list[File]:
    """GPUs in their slots, with or without a driver."""
    rows = [_smi_row(index, gpu) for index, gpu in enumerate(gpus)]
    # Every llama-server holds some memory; a test removes this to simulate a fallback to the CPU.
    apps = [{"cmdline_contains": "llama-server", "used_memory_mib": 518}]
    slots = [file for index in range(len(gpus)) for file in _slot(index)]
    return [
        File("etc/corral-lab/gpus.json", json.dumps({"gpus": rows, "apps": apps}, indent=1) + "\n"),
        File("etc/corral-lab/kernel.log", "0.0 lab kernel: Linux version of the lab\n"),
        File("usr/local/bin/journalctl", (_FILES / "journalctl").read_text(), 0o755),
        *slots,
    ]


def module(version: str) -> list[File]:
    """A loaded kernel module."""
    text = f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {version}  Release Build\n"
    return [File(MODULE_FILE, text), File(UVM_FILE, "")]


def _slot(index: int) -> list[File]:
    folder = f"{KERNEL}/sys/bus/pci/devices/{_pci(index)}"
    values = {"vendor": "0x10de", "class": "0x030200", "numa_node": "0"}
    return [File(f"{folder}/{name}", f"{value}\n") for name, value in values.items()]


def _pci(index: int) -> str:
    return f"0000:{0x3B + index:02x}:00.0"


def _smi_row(index: int, gpu: Gpu) -> dict[str, str | int]:
    """One GPU with the field names of `nvidia-smi --query-gpu`; memory in MiB."""
    return {
        "index": index,
        "name": gpu.name,
        "uuid": f"GPU-{uuid.uuid5(uuid.NAMESPACE_OID, f'corral-lab-{index}')}",
        "pci.bus_id": f"0000{_pci(index).upper()}",
        "driver_version": gpu.driver_version,
        "persistence_mode": "Disabled",
        "memory.total": gpu.memory_total_mib,
        "memory.free": gpu.memory_free_mib,
        "memory.used": gpu.memory_total_mib - gpu.memory_free_mib,
        "utilization.gpu": 0,
        "power.draw": 57,
        "enforced.power.limit": 250,
        "clocks.sm": 1410,
        "clocks.mem": 1215,
        # An idle GPU.
        "clocks_throttle_reasons.active": "0x0000000000000001",
        "pcie.replay_counter": 0,
        "ecc.errors.corrected.volatile.total": 0,
        "temperature.gpu": 31 + index,
        "compute_cap": gpu.compute_capability,
        "ecc.errors.uncorrected.volatile.total": 0,
        "compute_mode": "Default",
        "mig.mode.current": "Disabled",
    }
