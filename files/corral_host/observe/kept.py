"""The instances of this host, from its own records: no plan of a controller is needed or used.

So an operator's daily commands (status, logs, stop, revert) work whatever is wrong in the
controller's inventory, catalog or lock file.
"""

import os
from pathlib import Path

from corral_host import runtimes
from corral_host.instance.present import names, strange_units
from corral_host.instance.state import UNIT_PROPERTIES, installed_generation
from corral_host.instance.unit_file import ENABLED
from corral_host.nvidia import nvidia_smi
from corral_host.server.http import call, url_at
from corral_host.server.listener import processes_of
from corral_host.system.commands import FAULTS, read_json, show
from corral_host.system.processes import open_sockets, sockets
from corral_host.watch.look import ON_CPU, holds_some
from corral_host.watch.measures import Record
from corral_host.watch.service import records
from corral_host.weights.presence import weights_fault

# A server that does not answer within this time is reported as hanging.
HEALTH_SECONDS = 5


def instances(paths):
    """Name -> records and running state of each instance that was ever staged here."""
    folders = {name: Path(paths["state"]) / "instances" / name for name in names(paths)}
    found = {name: instance(folder, paths) for name, folder in folders.items()}
    on_gpus = any(one["plan"].get("uses_gpu") for one in found.values())
    # Also GPUs that no instance uses; a host without the driver has nothing to say.
    used = nvidia_smi.use()
    held = vram_mib(used["processes"])
    for name, one in found.items():
        one["vram_mib"] = held.get(one["unit"]) if on_gpus else None
        one["watch"] = Record(records(paths), name).fault or on_cpu(one, used)
    return {
        "instances": found,
        "strange_units": strange_units(paths),
        "gpus": used["gpus"],
        "gpu_problem": used["problem"] if on_gpus or used["gpus"] else "",
    }


def on_cpu(one, used):
    """What is wrong with a healthy server of GPUs that holds no memory of any; else empty."""
    if not (one["plan"].get("gpus") and one["health"] == "ok" and not used["problem"]):
        return ""
    mine = [process for process in used["processes"] if process["unit"] == one["unit"]]
    return "" if holds_some(mine) else ON_CPU


def instance(folder, paths):
    """State of one instance. ``plan``: of the installed generation; {} if no plan is stored."""
    unit = f"corral-{folder.name}.service"
    now = show(unit, *UNIT_PROPERTIES)
    pid = int(now["MainPID"])
    installed = installed_generation(Path(paths["units"]) / unit)
    plan = kept_plan(folder, installed)
    running, server = served_by(folder, installed, unit, pid)
    served = kept_plan(folder, running)
    ends = listening(server)
    return {
        "unit": unit,
        "active": now["ActiveState"],
        "sub": now["SubState"],
        "pid": pid,
        "restarts": int(now["NRestarts"]),
        "since": now["ActiveEnterTimestamp"],
        "at_boot": now.get("UnitFileState") == ENABLED,
        "installed_generation": installed,
        "proved_generation": (read_json(folder / "receipt.json") or {}).get("generation"),
        "running_generation": running,
        "model": served.get("model", ""),
        "quant": served.get("quant", ""),
        "listening": [url_at(address, port) for address, port in ends] or sockets_of(served, pid),
        "health": health(ends, served, pid),
        "weights_problem": ". Next: ".join(weights_fault(served or plan, paths) or ()),
        "plan": plan,
    }


def kept_plan(folder, generation):
    if generation is None:
        return {}
    plan = read_json(folder / "generations" / generation / "plan.json")
    return plan if isinstance(plan, dict) else {}


def served_by(folder, installed, unit, main):
    """The stored generation that runs, and its process; in an image that is not the main one."""
    others = sorted(processes_of(unit)) if runs_in_image(folder, installed) and main else ()
    for pid in (main, *others):
        if generation := running_generation(folder, installed, pid):
            return generation, pid
    return None, main


def runs_in_image(folder, generation):
    return runtimes.of(kept_plan(folder, generation)).images


def running_generation(folder, installed, pid):
    """The stored generation whose command line the process has; None if there is none."""
    try:
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return None
    kept = [path.name for path in sorted(folder.glob("generations/*"))]
    first = [installed] if installed in kept else []
    for name in [*first, *kept]:
        if argv and kept_plan(folder, name).get("argv") == argv:
            return name
    return None


def listening(pid):
    """Address and port of each TCP socket that a process listens on."""
    if not pid:
        return []
    try:
        mine = open_sockets(pid)
        return sorted((address, port) for address, port, inode in sockets(pid) if inode in mine)
    except FAULTS:
        # The process ended meanwhile.
        return []


def sockets_of(plan, pid):
    """The socket file of a server, if it has one."""
    path = (plan.get("endpoint") or {}).get("socket")
    return [f"unix:{path}"] if pid and path and os.path.exists(path) else []


def health(ends, plan, pid):
    """Answer of /health at the address where the server listens; "" while nothing runs."""
    if not pid:
        return ""
    end = {"address": ends[0][0], "port": ends[0][1], "socket": None} if ends else None
    end = end or plan.get("endpoint")
    if not end or not (ends or end.get("socket")):
        return "listens nowhere"
    try:
        code, body = call({"endpoint": end}, "GET", "/health", timeout=HEALTH_SECONDS)
    except FAULTS as error:
        return f"{type(error).__name__}: {error}"
    return "ok" if code == 200 else f"{code} {body.strip()[:80]}"


def vram_mib(processes):
    """Unit -> memory that it holds on all GPUs together."""
    held = {}
    for process in processes:
        held[process["unit"]] = held.get(process["unit"], 0) + (process["used_mib"] or 0)
    return held
