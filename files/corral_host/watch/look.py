"""What a running server shows without being asked for work: its process, and its GPU memory."""

import os
import re
from pathlib import Path

from corral_host.instance.stored_plan import NAME as PLAN
from corral_host.server.http import call
from corral_host.server.listener import processes_of
from corral_host.system.commands import FAULTS, read_json, show
from corral_host.system.locks import activate_lock, holder_of

WATCHED = ("ActiveState", "SubState", "MainPID", "InvocationID", "ActiveEnterTimestampMonotonic")
HEALTH_SECONDS = 5
LOADING = 503
ON_CPU = "it holds no GPU memory, so it serves from host memory"
# Nodes that a process with a CUDA context has open.
GPU_NODE = re.compile(r"/dev/nvidia(\d|-uvm)")


def current(watched):
    """The plan of the generation that serves, or None."""
    return read_json(Path(watched["folder"]) / "current" / PLAN)


def run_of(instance, state):
    """Id, pid and start of a server that runs and is left alone; None if it is not to be judged.

    ``state``: folder of the lock that activations hold. The start is in seconds since boot.
    """
    now = show(instance["unit"], *WATCHED)
    if (now["ActiveState"], now["SubState"]) != ("active", "running") or now["MainPID"] == "0":
        return None
    if holder_of(activate_lock(state)) is not None:
        return None
    began = int(now["ActiveEnterTimestampMonotonic"]) / 1e6
    return {"id": now["InvocationID"], "pid": int(now["MainPID"]), "began": began}


def is_loaded(instance):
    """Whether a server has its weights.

    Both llama-servers and vLLM answer this route, or that there is none, once they have loaded and
    whatever they compute; mainline says 503 before.
    """
    try:
        return call(instance, "GET", "/v1/health", timeout=HEALTH_SECONDS)[0] != LOADING
    except FAULTS:
        return False


def without_gpu(instance, run, smi):
    """Why a loaded server does not compute on a GPU; empty if it does, or might."""
    pids = {run["pid"], *processes_of(instance["unit"])}
    if smi["failure"]:
        # Such as after an upgrade of the driver's libraries: older processes still compute.
        if any(map(opens_gpu, pids)):
            return ""
        return f"it has no GPU open, so it serves from host memory (nvidia-smi: {smi['problem']})"
    mine = [process for process in smi["processes"] if process["pid"] in pids]
    return "" if holds_some(mine) else ON_CPU


def holds_some(processes):
    """Whether any of them holds GPU memory; some drivers in containers do not report how much."""
    return any(one["used_mib"] is None or one["used_mib"] > 0 for one in processes)


def opens_gpu(pid):
    """Whether a process has the node of a GPU open; True if that cannot be seen."""
    try:
        handles = os.listdir(f"/proc/{pid}/fd")
        return any(GPU_NODE.match(target(pid, one)) for one in handles)
    except FileNotFoundError:
        return False
    except OSError:
        return True


def target(pid, handle):
    try:
        return os.readlink(f"/proc/{pid}/fd/{handle}")
    except FileNotFoundError:
        return ""
