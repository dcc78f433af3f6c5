"""What is there for an instance on a GPU or in main memory, in MiB.

That is what is free now and what the instance itself holds, as it is replaced, less what other
instances of the host still have to take.
"""

import contextlib
from pathlib import Path

from corral_host.plans.fields import weights_mapped
from corral_host.system import kernel
from corral_host.system.commands import HostError, show


def gpu_room(wanted, instance, others, smi):
    """Room on the GPU with this index or uuid; ``others``: see `still_to_take`."""
    gpu = find(wanted, smi)
    if gpu is None or gpu["memory_free_mib"] is None:
        raise HostError(f"nvidia-smi does not tell what is free on GPU {wanted}: {smi['problem']}")
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
    """Room in main memory; mapped weights need none, the page cache gives way."""
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
    """An instance that serves what is planned has taken all; one to be replaced will take more."""
    if other["serves"] and holds:
        return 0
    return max(0, need - holds)


def find(wanted, smi):
    return next((gpu for gpu in smi["gpus"] if wanted in (gpu["index"], gpu["uuid"])), None)


def held(gpu, unit, smi):
    mine = [p for p in smi["processes"] if p["gpu"] == gpu["uuid"] and p["unit"] == unit]
    return sum(process["used_mib"] or 0 for process in mine)


def gpu_need(instance, gpu, smi):
    """What the plan says of this GPU, by whatever name the instance calls it."""
    pairs = zip(instance["gpus"], instance["need"]["gpus"])
    return sum(total(need) for wanted, need in pairs if find(wanted, smi) is gpu)


def host_need(instance):
    need = instance["need"]["host"]
    return total(need) - (need["weights_mib"] if weights_mapped(instance) else 0) if need else 0


def total(need):
    parts = ("weights_mib", "kv_mib", "compute_mib", "runtime_mib")
    return sum(need[part] for part in parts)


def held_by_unit(unit):
    """Memory of a unit's server that nothing else could have; 0 when it does not run."""
    pid = int(show(unit, "MainPID")["MainPID"])
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return held_by_process(Path(f"/proc/{pid}/status").read_text()) if pid else 0
    return 0


def held_by_process(status):
    lines = [line.split() for line in status.splitlines() if line.endswith(" kB")]
    kib = {words[0].rstrip(":"): int(words[1]) for words in lines}
    # Locked pages are also counted by their kind; never more than all of it.
    return min(kib["VmRSS"], kib["RssAnon"] + kib["VmLck"]) // 1024
