"""What the kernel reports: memory, NUMA nodes, PCI devices, the NVIDIA module, Xid errors."""

import os
import re
import subprocess
from datetime import datetime
from pathlib import Path

# /proc, /sys and /dev of a lab host cannot be changed; a file below this folder replaces one there.
STAND_IN = Path("/etc/corral-lab/kernel")
NVIDIA_VENDOR = "0x10de"
# PCI class 03: VGA and 3D controllers; the audio function of a card is class 04.
DISPLAY_CLASS = "0x03"
XID = re.compile(r"NVRM: Xid \((?:PCI:)?([0-9a-fA-F:.]+)[^)]*\): (\d+)")
JOURNAL = ("journalctl", "-k", "-b", "-q", "--no-pager", "-o", "short-unix")


def kernel_path(path):
    """Where to read a file of the kernel; only this function knows of the lab's stand-ins."""
    stand_in = STAND_IN / path.lstrip("/")
    return stand_in if stand_in.exists() else Path(path)


def memory():
    """Main memory, in MiB; huge pages by their number and size."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return {
        "total_mib": kib["MemTotal"] // 1024,
        "available_mib": kib["MemAvailable"] // 1024,
        "swap_total_mib": kib["SwapTotal"] // 1024,
        "swap_free_mib": kib["SwapFree"] // 1024,
        "huge_pages": kib.get("HugePages_Total", 0),
        "huge_pages_free": kib.get("HugePages_Free", 0),
        "huge_page_kib": kib.get("Hugepagesize", 0),
    }


def command_line():
    """Arguments with which the kernel was booted."""
    return kernel_path("/proc/cmdline").read_text().strip()


def numa_nodes():
    """Number of NUMA nodes; a kernel without NUMA has one."""
    return len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))) or 1


def cores():
    """Processors that this process may use: threads of the hardware, and cores that have them."""
    usable = sorted(os.sched_getaffinity(0))
    topology = Path("/sys/devices/system/cpu")
    found = set()
    for number in usable:
        files = [topology / f"cpu{number}/topology" / n for n in ("physical_package_id", "core_id")]
        known = all(file.exists() for file in files)
        found.add(tuple(file.read_text().strip() for file in files) if known else (number,))
    return {"threads": len(usable), "cores": len(found)}


def pci_gpus():
    """NVIDIA GPUs on the PCI bus, with or without a driver: address and NUMA node."""
    devices = kernel_path("/sys/bus/pci/devices")
    found = sorted(devices.iterdir()) if devices.is_dir() else []
    return [{"pci": d.name, "numa_node": numa_node(d)} for d in found if is_nvidia_gpu(d)]


def is_nvidia_gpu(device):
    vendor = (device / "vendor").read_text().strip()
    return vendor == NVIDIA_VENDOR and (device / "class").read_text().startswith(DISPLAY_CLASS)


def numa_node(device):
    """NUMA node of a device, or None: -1 in sysfs means that it belongs to none."""
    path = device / "numa_node"
    number = int(path.read_text()) if path.exists() else -1
    return number if number >= 0 else None


def module():
    """The loaded NVIDIA module: version, and whether it is the open one."""
    path = kernel_path("/proc/driver/nvidia/version")
    text = path.read_text() if path.exists() else ""
    found = re.search(r"^NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)\s", text, re.MULTILINE)
    return {
        "module_version": found.group(1) if found else None,
        "open_module": "Open Kernel Module" in text,
    }


def pci_address(text):
    """``00000000:3B:00.0`` of nvidia-smi and ``0000:3b:00`` of a Xid, as sysfs writes it."""
    domain, bus, device = text.lower().split(":")
    return f"{domain[-4:]}:{bus}:{device.partition('.')[0]}.0"


def xids():
    """NVIDIA's errors (Xids) in the kernel log since boot, or why the log cannot be read."""
    done = run(*JOURNAL, "-g", "NVRM: Xid")
    if done.stdout or (run(*JOURNAL, "-n", "1").stdout and not done.stderr):
        return {"xids": list(parse(done.stdout, float)), "xids_unreadable": ""}
    # A container's journal has no kernel messages; the ring buffer may still be open to it.
    ring = run("dmesg", "--time-format=iso")
    if ring.returncode == 0:
        return {"xids": list(parse(ring.stdout, iso_seconds)), "xids_unreadable": ""}
    reason = done.stderr.strip() or ring.stderr.strip() or f"dmesg exited {ring.returncode}"
    return {"xids": [], "xids_unreadable": reason}


def parse(text, seconds):
    for line in text.splitlines():
        found = XID.search(line)
        if found:
            yield {
                "pci": pci_address(found.group(1)),
                "code": int(found.group(2)),
                "time_seconds": seconds(line.split()[0]),
            }


def iso_seconds(text):
    return datetime.fromisoformat(text.replace(",", ".")).timestamp()


def run(*command):
    """Run a command and return it with any exit code; 127 if it is not installed."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}
        )
    except FileNotFoundError as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))
