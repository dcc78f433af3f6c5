"""Figures of GPUs that change from moment to moment, for monitoring.

Names of fields: `nvidia-smi --help-query-gpu` of driver 580. One that a driver does not know ends
the whole query, so it is left out and the others are asked again.
"""

import re
import shutil
import subprocess

from corral_host.nvidia.nvidia_smi import finish, start, value
from corral_host.system.kernel import pci_address

FIELDS = {
    "index": "index",
    "name": "name",
    "uuid": "uuid",
    "pci.bus_id": "pci",
    "memory.total": "memory_total_mib",
    "memory.used": "memory_used_mib",
    "utilization.gpu": "utilization_percent",
    "temperature.gpu": "temperature_celsius",
    "power.draw": "power_watts",
    "enforced.power.limit": "power_limit_watts",
    "clocks.sm": "clock_sm_mhz",
    "clocks.mem": "clock_memory_mhz",
    # The old name of clocks_event_reasons.active, which drivers before 535 do not know.
    "clocks_throttle_reasons.active": "throttled",
    "ecc.errors.corrected.volatile.total": "ecc_corrected",
    "ecc.errors.uncorrected.volatile.total": "ecc_uncorrected",
    "pcie.replay_counter": "pcie_replays",
}
TEXTS = ("index", "name", "uuid", "pci", "throttled")
# Bits of the mask of reasons (nvml.h, nvmlClocksEventReasons*); 0x1 is an idle GPU, 0x2 a clock
# that an application has set: neither slows a server that works.
REASONS = {
    0x4: "power_cap",
    0x8: "hardware_slowdown",
    0x10: "sync_boost",
    0x20: "thermal",
    0x40: "hardware_thermal",
    0x80: "power_brake",
}
UNKNOWN = re.compile(r'Field "([^"]+)" is not a valid field')
# A GPU that fell off the bus can keep nvidia-smi waiting for ever.
SECONDS = 15


def figures():
    """Figures of each GPU, with None for what it does not report; and what is wrong, or empty."""
    if not shutil.which("nvidia-smi"):
        return [], ""
    fields = dict(FIELDS)
    while True:
        process = start("gpu", fields)
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            finish(process)
            return [], f"nvidia-smi did not answer in {SECONDS} s"
        text, code = finish(process)
        unknown = UNKNOWN.search(text)
        if not unknown or fields.pop(unknown.group(1), None) is None:
            break
    lines = [line for line in text.splitlines() if line.strip()]
    rows = [row for line in lines for row in figure_rows(line, fields)]
    said = [line.strip() for line in lines if not figure_rows(line, fields)]
    return rows, " ".join(said) or (f"nvidia-smi exited with {code}" if code else "")


def figure_rows(line, fields):
    """The GPU in a line of output, as a list of one; empty if the line is something else."""
    found = [field.strip() for field in line.split(",")]
    if len(found) != len(fields) or not found[0].isdigit():
        return []
    row = {**dict.fromkeys(FIELDS.values()), **dict(zip(fields.values(), map(value, found)))}
    for name in row.keys() - set(TEXTS):
        row[name] = number(row[name])
    row["pci"] = pci_address(row["pci"]) if row["pci"] else None
    return [row]


def number(text):
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def reasons(mask):
    """Reason -> whether it lowers the clocks now; empty if the driver does not say."""
    try:
        bits = int(mask, 16)
    except (TypeError, ValueError):
        return {}
    return {name: bool(bits & bit) for bit, name in REASONS.items()}
