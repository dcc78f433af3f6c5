"""Drift: where this host differs from what was last deployed, by its own records. Changes nothing.

No plan of a controller is needed; `corral diff` compares with that one.
"""

import json
import os
import time
from pathlib import Path

from corral_shared.names import RECEIPT

from corral_host.gateway.generations import current, wrong_files
from corral_host.gateway.socket import running_generation
from corral_host.instance.present import strange_units
from corral_host.instance.state import instance_state
from corral_host.monitoring.hashed import corrupt, installed, read_record
from corral_host.nvidia.gpu import library_version, packages
from corral_host.observe.boot import changes
from corral_host.observe.monitored import applied, private_digest, runs, wrong_programs
from corral_host.release.whole import release_is_whole
from corral_host.system import kernel
from corral_host.system.commands import FAULTS, digest_or_none, read_json, say, write_atomic
from corral_host.weights.models_root import root_fault

AGAIN = "deploy HOST again"
# How often drift is looked for while there is some.
AGAIN_SECONDS = 600


def drift(document):
    """Rows: where, planned, found, next_step. ``document``: paths."""
    paths, rows = document["paths"], []
    for part in PARTS:
        try:
            rows += part(paths)
        except (*FAULTS, TypeError, AttributeError) as fault:
            what = f"cannot be compared ({type(fault).__name__}: {fault})"
            rows.append(row(part.__name__[3:], "its records", what, AGAIN))
    return rows


def row(where, planned, found, next_step):
    return {"where": where, "planned": planned, "found": found, "next_step": next_step}


def of_instances(paths):
    for name, plan in installed(paths).items():
        try:
            yield from of_instance(name, plan)
        except (*FAULTS, TypeError, AttributeError) as fault:
            # Such as a plan of an earlier version.
            what = f"cannot be compared ({type(fault).__name__}: {fault})"
            yield row(name, "its stored plan", what, AGAIN)


def of_instance(name, plan):
    """The unit with its drop-ins, the keys, the process and the release of an instance."""
    if not plan:
        yield row(name, "an installed generation", "no stored plan of it", AGAIN)
        return
    planned = f"generation {plan['generation']}"
    for what in instance_state(plan, rekeyed=False)["differs"]:
        yield row(name, planned, what, f"`corral verify HOST/{name}`, then {AGAIN}")
    release = {"folder": plan["release_folder"], "key": plan["release"]}
    if not release_is_whole(release):
        yield row(name, f"release {plan['release']}", "it is missing or not whole", AGAIN)


def of_weights(paths):
    fault = root_fault(paths)
    if fault:
        yield row("weights", "the models folder", fault[0], fault[1])
        return
    plans = installed(paths).values()
    for path in sorted({path for plan in plans for path in plan.get("shards", ())}):
        found = weights_fault(path)
        if found:
            yield row("weights", path, found, AGAIN)
    for path in corrupt(read_record(paths)):
        yield row("weights", path, "other bytes than were locked", AGAIN)


def weights_fault(path):
    """Why a file of weights is not the one that was proved; None if nothing says so."""
    receipt = read_json(f"{path}{RECEIPT}")
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return "it is missing"
    if not receipt:
        return "it is not proved"
    if [found.st_size, found.st_mtime_ns] != [receipt["size_bytes"], receipt["mtime_ns"]]:
        return "it was changed since it was proved"
    return None


def of_gateway(paths):
    root = Path(paths["gateway"])
    planned = current(root)
    if planned is None:
        return
    for path in wrong_files(root, paths["units"]):
        yield row("gateway", f"generation {planned}", f"{path} was changed", AGAIN)
    running = running_generation()
    if running != planned:
        what = f"generation {running} runs" if running else "HAProxy does not run with it"
        yield row("gateway", f"generation {planned}", what, AGAIN)


def of_driver(_):
    loaded, library = kernel.module()["module_version"], library_version()
    if loaded and library and loaded != library:
        step = "deploy HOST with --data allow_reboot=true"
        yield row("driver", f"library {library}", f"module {loaded} is loaded", step)
    found = packages([], library)
    free = sorted(name for name, one in found.items() if not one["held"])
    # None is held where somebody else installed the driver.
    if free and len(free) < len(found):
        what = f"apt may upgrade {', '.join(free)}"
        yield row("driver", "its packages are held", what, AGAIN)


def of_monitoring(paths):
    record = applied(paths)
    if record is None:
        return
    if not record["digest"]:
        yield row("monitoring", "it is applied whole", "a deploy of it did not end", AGAIN)
        return
    # Records of earlier versions have no digests.
    for path, digest in record.get("sha256", {}).items():
        found = digest_or_none(path)
        if found != digest:
            what = "it was changed" if found else "it is missing"
            yield row("monitoring", path, what, AGAIN)
    for path in record["files"]:
        if path not in record.get("sha256", {path: ""}) and private_digest(path) is None:
            yield row("monitoring", f"{path}, for root alone", "it is missing or open", AGAIN)
    programs = record.get("programs", ())
    pinned = {one["package"]: one["version"] for one in programs}
    for name, version in wrong_programs(programs).items():
        what = f"{version} is installed" if version else "it is not installed"
        yield row("monitoring", f"{name} {pinned[name]}", what, AGAIN)
    for unit in record["units"]:
        if not runs(unit):
            yield row("monitoring", f"{unit} runs, and starts at boot", "it does not", AGAIN)


def of_kernel(paths):
    gone, new = changes(paths)
    step = "put it back and reboot; if it is wanted, deploy HOST again"
    for one in gone:
        yield row("kernel command line", one, "it is gone", step)
    for one in new:
        yield row("kernel command line", "as at the last deploy", f"{one} is new", step)


def of_units(paths):
    for unit in strange_units(paths):
        what = "it starts at boot, and no instance has it"
        yield row(unit, "no such unit", what, f"on the host `systemctl disable --now {unit}`")


PARTS = (
    of_instances,
    of_weights,
    of_gateway,
    of_driver,
    of_kernel,
    of_monitoring,
    of_units,
)


def record_path(paths):
    return Path(paths["state"]) / "monitoring" / "drift.json"


def keep(paths, rows):
    """Store the rows of a day's check, for the metrics."""
    for one in rows:
        say(f"{one['where']}: {one['found']} (planned: {one['planned']})")
    path = record_path(paths)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    write_atomic(path, json.dumps({"at": time.time(), "rows": rows}, indent=1) + "\n")


def look_again(paths):
    """Compare again while there is drift: its alert ends soon after the repair, not a day later."""
    kept = read_json(record_path(paths))
    if kept and kept["rows"] and time.time() - kept["at"] >= AGAIN_SECONDS:
        keep(paths, drift({"paths": paths}))


def drifted(found, paths):
    """Samples: rows of the last check, and when it was; none before the first."""
    kept = read_json(record_path(paths))
    if kept:
        found.add("corral_drift_rows", len(kept["rows"]))
        found.add("corral_drift_checked_timestamp_seconds", kept["at"])
