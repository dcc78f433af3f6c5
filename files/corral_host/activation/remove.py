"""Remove instances from this host, or all that Corral put here.

Each step may run again after a kill: what says that an instance is here, its folder and its unit,
goes last.
"""

import os
import shutil
from pathlib import Path

from corral_host.activation import journal, watchdog
from corral_host.activation.drain import drain
from corral_host.activation.switch import BEFORE, NEXT, end
from corral_host.gateway.generations import UNIT as GATEWAY
from corral_host.gateway.generations import drop_in_path
from corral_host.instance.present import NAME, SPARE, names, unit_of
from corral_host.monitoring.install import stop
from corral_host.packets import redirect, reserve
from corral_host.packets.reserve_switch import release_removed
from corral_host.server import staged_keys
from corral_host.system.commands import HostError, output, quiet, read_json, say
from corral_host.system.folders import remove as remove_folder
from corral_host.system.locks import activate_lock, held, refuse_other_rollout
from corral_host.system.modes import OWN
from corral_host.system.trees import remove_tree
from corral_host.watch import service
from corral_host.weights import kept
from corral_host.weights.models_root import record

# Jobs of one instance: their folders have its name.
JOBS = ("activate", "revert", "trial", "bench")


def remove(document):
    """Stop an instance and remove its unit, generations and keys; its weights stay.

    ``document``: paths, instance, by, rollout (the caller's, or None), drain_seconds. Returns how
    many requests were cut.
    """
    paths, name = document["paths"], document["instance"]
    if not NAME.fullmatch(name) or name not in names(paths):
        raise HostError(
            f"{name}: this host has no such instance", "see `corral status` of this host"
        )
    refuse_other_rollout(paths["state"], document.get("rollout"))
    with held(activate_lock(paths["state"]), document["by"], f"removing {name}"):
        refuse_unfinished(paths, name)
        return {"removed": name, "requests_cut": removed(paths, name, document["drain_seconds"])}


def refuse_unfinished(paths, name):
    folder = Path(paths["state"]) / "instances" / name
    if journal.journal(folder).exists():
        guard = watchdog.guard_paths(paths["units"], name)[0].name
        raise HostError(
            f"{name}: an activation of it is unfinished; nothing was removed",
            f"`systemctl start {guard}` on the host settles it; then the same command again",
        )


def removed(paths, name, drain_seconds):
    """Remove an instance; returns how many requests were cut."""
    folder, key_path = Path(paths["state"]) / "instances" / name, Path(paths["keys"]) / name
    plan = read_json(folder / "current" / "plan.json") or {}
    unit = unit_of(name)
    # No boot starts it again, whatever happens from here on.
    quiet("disable", "--quiet", unit)
    cut = drain({**plan, "unit": unit}, drain_seconds) if plan.get("endpoint") else 0
    for one in (unit_of(name + SPARE), unit):
        end(one)
        quiet("reset-failed", "--quiet", one)
        # Its folder of caches, which belongs to a user that is gone.
        quiet("clean", "--what=all", one)
    watchdog.remove(paths["units"], name)
    release_removed(paths, name)
    if shutil.which("nft"):
        redirect.remove(name)
    for path in (key_path, staged_keys.staged_path(key_path), staged_keys.before_path(key_path)):
        path.unlink(missing_ok=True)
    for kind in JOBS:
        shutil.rmtree(Path(paths["state"]) / "jobs" / f"{kind}-{name}", ignore_errors=True)
    remove_folder(folder)
    path = Path(paths["units"]) / unit
    spare = Path(paths["units"]) / unit_of(name + SPARE)
    for one in (spare, Path(f"{path}{BEFORE}"), Path(f"{path}{NEXT}"), path):
        one.unlink(missing_ok=True)
    output("systemctl", "daemon-reload")
    say(f"removed {name}")
    return cut


def remove_all(document):
    """Remove what is left of Corral once no instance is: gateway, rules, releases, state, helper.

    ``document``: paths, by, weights (whether they go, too). Packages and drivers stay, and what is
    mounted in Corral's folders: other hosts may share it.
    """
    paths = document["paths"]
    refuse_other_rollout(paths["state"], None)
    with held(activate_lock(paths["state"]), document["by"], "removing Corral"):
        left = names(paths)
        if left:
            raise HostError(
                f"{', '.join(left)}: still on this host; nothing was removed",
                "`corral remove HOST --all`, which removes them first",
            )
        refuse_jobs()
        remove_gateway(paths)
        nothing = {"paths": paths, "instances": [], "gateway": None}
        service.install(nothing)
        stop(nothing)
        if shutil.which("nft"):
            reserve.remove_rules(reserve.texts(nothing))
        if document["weights"]:
            kept.remove_all(paths)
        gone = [one for one in own_folders(paths) if one.is_dir()]
        left = [mount for folder in gone for mount in remove_tree(folder)]
        left += empty_state(paths)
    return {"removed": list(map(str, gone)), "mounts": list(map(str, left))}


def refuse_jobs():
    listed = output(
        "systemctl", "list-units", "--no-legend", "--plain", "--state=active,activating",
        "corral-job-*",
    )  # fmt: skip
    running = [line.split()[0] for line in listed.splitlines() if line.strip()]
    if running:
        raise HostError(
            f"{running[0]} is running here; nothing was removed",
            f"wait for it (journalctl -fu {running[0]}), then the same command again",
        )


def remove_gateway(paths):
    """Stop HAProxy and take Corral's configuration from it; the package stays."""
    place = drop_in_path(paths["units"])
    if not place.exists():
        return
    output("systemctl", "disable", "--quiet", "--now", GATEWAY)
    place.unlink()
    if not os.listdir(place.parent):
        place.parent.rmdir()
    output("systemctl", "daemon-reload")


def own_folders(paths):
    """Folders that Corral alone writes to, except for that of its state."""
    named = (paths[name] for name in ("engines", "keys", "gateway", "compiler_cache", "helper"))
    return list(dict.fromkeys(outermost(Path(path)) for path in named))


def outermost(path):
    """The folder of a path that is called after Corral, else the path itself."""
    return next((one for one in path.parents if one.name == OWN), path)


def empty_state(paths):
    """Remove the state, except for weights that are still in it and the record of their disk.

    Returns mounts that stay.
    """
    state = Path(paths["state"])
    if not state.is_dir():
        return []
    stays = {state / "models"} if (state / "models").is_dir() else set()
    stays |= {record(paths)} if record(paths).exists() else set()
    left = []
    for one in sorted(set(state.iterdir()) - stays):
        if one.is_dir() and not one.is_symlink():
            left += remove_tree(one)
        else:
            one.unlink()
    if not stays and not left:
        state.rmdir()
    return left
