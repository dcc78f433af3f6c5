"""Samples of GPUs, of their errors since boot, and of the driver."""

from collections import Counter

from corral_host.monitoring.textfile import scaled
from corral_host.nvidia.figures import figures, reasons
from corral_host.nvidia.gpu import library_version
from corral_host.system import kernel

MIB, MHZ = 1024**2, 1e6
# Field -> metric and factor.
SAMPLES = {
    "memory_total_mib": ("corral_gpu_memory_total_bytes", MIB),
    "memory_used_mib": ("corral_gpu_memory_used_bytes", MIB),
    "utilization_percent": ("corral_gpu_utilization_ratio", 0.01),
    "temperature_celsius": ("corral_gpu_temperature_celsius", 1),
    "power_watts": ("corral_gpu_power_watts", 1),
    "power_limit_watts": ("corral_gpu_power_limit_watts", 1),
    "clock_sm_mhz": ("corral_gpu_clock_sm_hertz", MHZ),
    "clock_memory_mhz": ("corral_gpu_clock_memory_hertz", MHZ),
    "ecc_corrected": ("corral_gpu_ecc_corrected_total", 1),
    "ecc_uncorrected": ("corral_gpu_ecc_uncorrected_total", 1),
    "pcie_replays": ("corral_gpu_pcie_replays_total", 1),
}


def gpus(found, _):
    buses = [bus["pci"] for bus in kernel.pci_gpus()]
    rows, problem = figures()
    if not rows and not buses and not problem:
        return
    found.add("corral_gpus_on_bus", len(buses))
    found.add("corral_gpus_answering", len(rows))
    found.add("corral_gpu_query_failed", bool(problem))
    xids = kernel.xids()
    # A log that cannot be read does not say that there were no errors.
    codes = None if xids["xids_unreadable"] else [(one["pci"], one["code"]) for one in xids["xids"]]
    for row in rows:
        labels = {"gpu": row["index"], "uuid": row["uuid"] or "", "name": row["name"] or ""}
        for field, (metric, factor) in SAMPLES.items():
            found.add(metric, scaled(row[field], factor), **labels)
        for reason, is_active in reasons(row["throttled"]).items():
            found.add("corral_gpu_throttled", is_active, **labels, reason=reason)
        if codes is not None:
            own = [code for pci, code in codes if pci == row["pci"]]
            found.add("corral_gpu_xids_total", len(own), **labels)
    for (pci, code), count in sorted(Counter(codes or ()).items()):
        # Also of a GPU that no longer answers.
        found.add("corral_xids_total", count, pci=pci, code=code)


def driver(found, _):
    """1 if the loaded module and the library differ: no new server can use the GPUs then."""
    loaded, library = kernel.module()["module_version"], library_version()
    if loaded and library:
        found.add("corral_driver_differs", loaded != library, module=loaded, library=library)
