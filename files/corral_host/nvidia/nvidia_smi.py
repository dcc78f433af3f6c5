"""What nvidia-smi reports of GPUs and of the processes that hold their memory.

Formats and exit codes: nvidia-smi(1) of driver 580, "RETURN VALUE".
"""

import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from corral_host.system.kernel import pci_address
from corral_host.system.processes import unit_of

# Fields of --query-gpu -> Corral's names.
GPU_FIELDS = {
    "index": "index",
    "name": "name",
    "uuid": "uuid",
    "pci.bus_id": "pci",
    "driver_version": "driver_version",
    "persistence_mode": "persistence",
    "memory.total": "memory_total_mib",
    "memory.free": "memory_free_mib",
    "compute_cap": "compute_capability",
    "ecc.errors.uncorrected.volatile.total": "ecc_uncorrected",
    "compute_mode": "compute_mode",
    "mig.mode.current": "mig_mode",
}
# What changes from moment to moment, for people.
USE_FIELDS = {
    "index": "index",
    "name": "name",
    "uuid": "uuid",
    "memory.total": "memory_total_mib",
    "memory.used": "memory_used_mib",
    "utilization.gpu": "utilization_percent",
    "temperature.gpu": "temperature_celsius",
}
APP_FIELDS = ("gpu_uuid", "pid", "used_memory")
NUMBERS = ("index", "memory_total_mib", "memory_free_mib", "ecc_uncorrected")
# Values of a field that this GPU or driver does not have.
NOT_THERE = ("[N/A]", "N/A", "[Not Supported]", "[Not Found]", "[Insufficient Permissions]")
# Values of a field that a faulty GPU does not answer.
SICK = ("[Unknown Error]", "[GPU requires reset]", "[GPU is lost]", "ERR!", "[ERR!]")
FAILURES = (
    ("mismatch", "Driver/library version mismatch"),
    ("no-devices", "No devices were found"),
    ("no-driver", "couldn't communicate with the NVIDIA driver"),
    ("lost", "Unable to determine the device handle"),
    ("lost", "GPU is lost"),
)
EXIT_CODES = {6: "no-devices", 9: "no-driver", 15: "lost"}


def ask():
    """GPUs, processes on them, and what is wrong; both queries run at the same time."""
    if not shutil.which("nvidia-smi"):
        return {"gpus": [], "failure": "absent", "problem": "nvidia-smi is not installed"}
    both = [start("gpu", GPU_FIELDS), start("compute-apps", APP_FIELDS)]
    (gpu_text, gpu_code), (app_text, _) = map(finish, both)
    listed = [row for line in gpu_text.splitlines() for row in gpu_rows(line)]
    answer = {"gpus": listed, **failure(gpu_text, gpu_code)}
    return {**answer, "processes": list(holders(app_text))}


def use():
    """Use of each GPU, with the MiB that each unit holds of it, and what is wrong.

    ``units``: unit -> MiB; None if the driver does not say how much. A process of no unit counts
    under its program's name.
    """
    if not shutil.which("nvidia-smi"):
        return {"gpus": [], "processes": [], "problem": "nvidia-smi is not installed"}
    both = [start("gpu", USE_FIELDS), start("compute-apps", APP_FIELDS)]
    (gpu_text, gpu_code), (app_text, _) = map(finish, both)
    rows = [row for line in gpu_text.splitlines() for row in use_rows(line)]
    said = [line for line in gpu_text.splitlines() if line.strip() and not use_rows(line)]
    processes, units = list(holders(app_text)), {}
    for one in processes:
        name = one["unit"] or f"{one['program']} (pid {one['pid']})"
        held = units.setdefault(one["gpu"], {})
        before, more = held.get(name, 0), one["used_mib"]
        held[name] = None if None in (before, more) else before + more
    problem = " ".join(said) or (f"nvidia-smi exited with {gpu_code}" if gpu_code else "")
    gpus = [{**row, "units": units.get(row["uuid"], {})} for row in rows]
    return {"gpus": gpus, "processes": processes, "problem": problem}


def use_rows(line):
    """The GPU in a line of output, as a list of one; empty if the line is something else."""
    fields = [field.strip() for field in line.split(",")]
    if len(fields) != len(USE_FIELDS) or not fields[0].isdigit():
        return []
    values = dict(zip(USE_FIELDS.values(), map(value, fields)))
    for name in values.keys() - {"name", "uuid"}:
        values[name] = number(values[name])
    return [values]


def start(kind, fields):
    return subprocess.Popen(
        ["nvidia-smi", f"--query-{kind}={','.join(fields)}", "--format=csv,noheader,nounits"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
    )


def finish(process):
    text, _ = process.communicate()
    return text, process.returncode


def failure(text, code):
    """Kind and text of a failure, the lost GPUs, and the library's version if it is reported."""
    said = [line.strip() for line in text.splitlines() if line.strip() and not gpu_rows(line)]
    if code == 0 and not said:
        return {"failure": "", "problem": ""}
    problem = " ".join(said) or f"nvidia-smi exited with {code}"
    kinds = [kind for kind, part in FAILURES if part in problem]
    lost = re.findall(r"GPU\s?([0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9])", problem)
    library = re.search(r"NVML library version: ([\d.]+\d)", problem)
    return {
        "failure": kinds[0] if kinds else EXIT_CODES.get(code, "other"),
        "problem": problem,
        "lost": [pci_address(pci) for pci in lost],
        "nvml_version": library.group(1) if library else None,
    }


def gpu_rows(line):
    """The GPU in a line of output, as a list of one; empty if the line is something else."""
    fields = [field.strip() for field in line.split(",")]
    if len(fields) != len(GPU_FIELDS) or not fields[0].isdigit():
        return []
    values = dict(zip(GPU_FIELDS.values(), map(value, fields)))
    for name in NUMBERS:
        values[name] = number(values[name])
    values["pci"] = pci_address(values["pci"]) if values["pci"] else None
    values["persistence"] = values["persistence"] == "Enabled"
    values["problem"] = next((field for field in fields if field in SICK), "")
    return [values]


def value(field):
    return None if field in NOT_THERE or field in SICK else field


def number(field):
    return int(field) if field and field.isdigit() else None


def holders(text):
    """Processes that hold memory of a GPU; a driver in a container may not report how much."""
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == len(APP_FIELDS) and fields[1].isdigit():
            pid = int(fields[1])
            held = {"gpu": fields[0], "pid": pid, "used_mib": number(fields[2])}
            yield {**held, **who(pid)}


def who(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        return {"program": name, "unit": unit_of(pid)}
    return {"program": "?", "unit": ""}
