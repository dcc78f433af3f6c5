"""Memory available to an instance on a GPU or in main memory, in MiB.

It is what is free now, plus what the instance's running server holds and will free, less what other
instances of the host have yet to allocate.
"""

import contextlib
from pathlib import Path

from corral_host.plans.fields import weights_mapped
from corral_host.server.listener import processes_of
from corral_host.system import kernel
from corral_host.system.commands import HostError


def gpu_room(wanted, instance, others, smi):
    """Memory available on the GPU with this index or uuid; ``others``: see `still_to_take`."""
    gpu = find(wanted, smi)
    if gpu is None or gpu["memory_free_mib"] is None:
        raise HostError(
            f"nvidia-smi does not report the free memory of GPU {wanted}: {smi['problem']}"
        )
    own = held(gpu, instance["unit"], smi)
    taken = {
        other["name"]: still_to_take(
            other, gpu_need(other, gpu, smi), held(gpu, other["unit"], smi)
        )
        for other in others
    }
    units = {one["unit"] for one in [instance, *others]}
    return {
        **room(gpu["memory_free_mib"], own, taken),
        "strangers": [
            f"{p['program']} (pid {p['pid']}) {p['used_mib']} MiB"
            for p in smi["processes"]
            if p["gpu"] == gpu["uuid"] and p["unit"] not in units
        ],
    }


def host_room(instance, others):
    """Available main memory; mapped weights need none, as the kernel can drop their pages."""
    taken = {
        other["name"]: still_to_take(other, host_need(other), held_by_unit(other["unit"]))
        for other in others
    }
    free = kernel.memory()["available_mib"]
    return {**room(free, held_by_unit(instance["unit"]), taken), "strangers": []}


def room(free, own, taken):
    taken = {name: mib for name, mib in taken.items() if mib}
    return {"free": free, "own": own, "taken": taken, "there": free + own - sum(taken.values())}


def still_to_take(other, need, holds):
    """What another instance has yet to allocate; nothing if it serves its planned generation."""
    if other["serves"] and holds:
        return 0
    return max(0, need - holds)


def find(wanted, smi):
    return next((gpu for gpu in smi["gpus"] if wanted in (gpu["index"], gpu["uuid"])), None)


def held(gpu, unit, smi):
    mine = [p for p in smi["processes"] if p["gpu"] == gpu["uuid"] and p["unit"] == unit]
    return sum(process["used_mib"] or 0 for process in mine)


def gpu_need(instance, gpu, smi):
    """What an instance needs of this GPU by its plan, which may name it by index or uuid."""
    pairs = zip(instance["gpus"], instance["need"]["gpus"])
    return sum(total(need) for wanted, need in pairs if find(wanted, smi) is gpu)


def host_need(instance):
    need = instance["need"]["host"]
    return total(need) - (need["weights_mib"] if weights_mapped(instance) else 0) if need else 0


def total(need):
    parts = ("weights_mib", "kv_mib", "compute_mib", "runtime_mib")
    return sum(need[part] for part in parts)


def held_by_unit(unit):
    """Memory of a unit's processes that the kernel cannot reclaim; 0 if it does not run."""
    held = 0
    for pid in processes_of(unit):
        # It may end meanwhile; a zombie has no memory and no such lines.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, KeyError):
            held += held_by_process(Path(f"/proc/{pid}/status").read_text())
    return held


def held_by_process(status):
    lines = [line.split() for line in status.splitlines() if line.endswith(" kB")]
    kib = {fields[0].rstrip(":"): int(fields[1]) for fields in lines}
    # Locked pages are also counted in their own kind, so the sum is limited by the total.
    return min(kib["VmRSS"], kib["RssAnon"] + kib["VmLck"]) // 1024
