"""Observe how much of a plan is present on this host. Changes nothing."""

import os
import shutil
import subprocess
import time
from pathlib import Path

from corral_host import engines
from corral_host.gateway.generations import gateway_state
from corral_host.instance.present import unplanned
from corral_host.instance.state import instance_state
from corral_host.nvidia.gpu import gpu_host
from corral_host.observe.boot import is_recorded
from corral_host.observe.monitored import monitoring_state
from corral_host.observe.weights import freed_bytes, unneeded
from corral_host.packets.reserve import is_reserved
from corral_host.release.releases import unused_releases
from corral_host.release.whole import cpu, release_is_whole
from corral_host.runtimes.containers import containers
from corral_host.system.commands import HostError, digest_or_none, find_program
from corral_host.system.locks import rollout_here
from corral_host.system.modes import closed
from corral_host.system.processes import listeners
from corral_host.watch.service import is_watched
from corral_host.weights.adopt import here
from corral_host.weights.models_root import (
    existing,
    models_root,
    root_fault,
    root_state,
)
from corral_host.weights.receipts import shard_state

ABSENT = {"proved": False, "staged_bytes": 0}


def state(plan):
    """``plan``: a HostPlan, and digest_key, see server/key_digest.py."""
    paths, systemd, gateway = plan["paths"], systemd_runs(), plan.get("gateway")
    key = plan.get("digest_key")
    os_id, os_version = os_release()
    lost = root_fault(paths)
    # A missing disk is not accessed: each access might end with an error.
    shards = {s["path"]: ABSENT if lost else shard_state(s, paths) for s in plan["shards"]}
    missing = [shard for shard in plan["shards"] if not shards[shard["path"]]["proved"]]
    near = set() if lost else here(missing, paths)
    shards = {path: {**one, "here": path in near} for path, one in shards.items()}
    return {
        "os_id": os_id,
        "os_version": os_version,
        "architecture": os.uname().machine,
        "cpu_flags": cpu_flags(),
        "time_seconds": time.time(),
        "systemd": systemd,
        "missing_packages": missing_packages(plan["packages"]),
        "missing_commands": [name for name in plan["commands"] if not find_program(name)],
        "engine_config_files": [one for one in engines.config_files() if os.path.exists(one)],
        "helper_sha256": digest_or_none(paths["helper"]),
        "filesystems": {
            "engines": filesystem(paths["engines"]),
            "state": filesystem(paths["state"]),
            "models": filesystem(paths["state"] if lost else models_root(paths)),
        },
        "models_root": {**root_state(paths, lost, missing), "prunable_bytes": prunable(plan, lost)},
        "releases": {
            r["key"]: release_is_whole(r) for r in [*plan["releases"], *plan.get("builds", ())]
        },
        "unused_releases": unused(plan),
        "site_images": site_images(plan["releases"]),
        "closed": closed({**plan, "shards": []} if lost else plan),
        "shards": shards,
        "instances": {
            i["name"]: instance_state(i, digest_key=key) for i in plan["instances"] if systemd
        },
        "unplanned": unplanned(plan) if systemd else {},
        "listeners": listeners(ports(plan)),
        "ports_reserved": is_reserved(plan) if systemd else False,
        "watched": is_watched(plan) if systemd else False,
        "gateway": gateway_state(gateway, paths["units"], key) if gateway and systemd else None,
        "monitoring": monitored(plan) if systemd else {},
        "gpu_host": gpus(plan),
        "kernel_recorded": is_recorded(paths),
        "containers": containers(plan),
        "rollout": rollout_here(paths["state"]),
    }


def site_images(releases):
    """Key -> bytes of a site's own image on this host that is to be copied."""
    missing = {
        release["key"]: release["artifact"]["source"]
        for release in releases
        if release["artifact"]["kind"] == "own-image" and not release_is_whole(release)
    }
    return {key: os.path.getsize(path) for key, path in missing.items() if os.path.isfile(path)}


def ports(plan):
    """Ports of the servers, of their spares, and of the gateway."""
    gateway = plan.get("gateway") or {"pools": [], "metrics_port": None}
    spares = [i["activation"]["spare"] for i in plan["instances"]]
    ends = [*plan["instances"], *filter(None, spares)]
    own = [gateway["metrics_port"], *(pool["port"] for pool in gateway["pools"])]
    return [*(end["endpoint"]["port"] for end in ends), *own]


def gpus(plan):
    return gpu_host(plan, "-".join(os_release()), systemd_runs())


def monitored(plan):
    wanted = plan.get("monitoring")
    return monitoring_state(
        wanted, plan["paths"], missing_packages(wanted["packages"]) if wanted else []
    )


def systemd_runs():
    return os.path.isdir("/run/systemd/system")


def os_release():
    """Name and version of the distribution, such as debian and 12."""
    text = Path("/etc/os-release").read_text().replace('"', "")
    fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return fields.get("ID", ""), fields.get("VERSION_ID", "")


def cpu_flags():
    found = cpu()["flags"]
    return [flag for flag in ("avx", "avx2", "bmi2", "f16c", "fma") if flag in found]


def missing_packages(names):
    if not shutil.which("dpkg-query"):
        return list(names)
    command = ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *names]
    lines = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    installed = {
        line.split()[0] for line in lines.stdout.splitlines() if line.endswith(" installed")
    }
    return [name for name in names if name not in installed]


def filesystem(folder):
    """The file system that a folder is on, or will be on."""
    found = existing(folder)
    numbers = os.statvfs(found)
    return {"device": found.stat().st_dev, "free_bytes": numbers.f_bavail * numbers.f_frsize}


def unused(plan):
    """Folders of releases that may be removed; if that is unknown, `prune` says why."""
    try:
        return [str(folder) for folder in unused_releases(plan)]
    except HostError:
        return []


def prunable(plan, lost):
    """Bytes of weights that may be removed; if that is unknown, `prune-weights` says why."""
    try:
        return 0 if lost else freed_bytes(unneeded(plan))
    except (HostError, OSError):
        return 0
