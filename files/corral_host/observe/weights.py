"""Weights on this host and who needs them. Changes nothing."""

import contextlib
import os
import re
import time
from pathlib import Path

from corral_host.instance.history import history
from corral_host.instance.present import unit_of
from corral_host.observe.users import users_of_generations
from corral_host.system.commands import read_json, show
from corral_host.weights.adopt import roots
from corral_host.weights.kept import proved_files
from corral_host.weights.models_root import existing, models_root, root_fault, taken_bytes
from corral_host.weights.receipts import receipt_of, shard_is_proved

PLANNED = "planned"


def weights(plan):
    """Each file of weights as a row, the disk, and what nobody needs.

    ``plan``: a HostPlan, whose ``shards`` are needed; without that key it is unknown what is.
    """
    paths = plan["paths"]
    fault = root_fault(paths)
    rows = [] if fault else with_uses(rows_of(plan), paths)
    doomed = [row for row in rows if not row["users"]]
    return {
        "files": rows,
        "problem": fault[0] if fault else "",
        "next_step": fault[1] if fault else "",
        "size_bytes": sum(size_of_all(rows).values()),
        "unneeded_bytes": freed_bytes(doomed),
        "partial_bytes": 0 if fault else partial_bytes(paths),
        "disk": disk(paths),
    }


def unneeded(plan):
    """Rows of files that no plan, generation or process needs."""
    rows = [row for row in rows_of(plan) if not row["users"]]
    running = open_files() if rows else {}
    return [row for row in rows if os.path.realpath(row["path"]) not in running]


def rows_of(plan):
    """Rows of all files with a receipt, and which plans and generations need them."""
    paths = plan["paths"]
    planned = {shard["path"] for shard in plan.get("shards") or ()}
    kept, found = users_of_generations(paths), []
    for folder in roots(paths):
        for path in proved_files(folder):
            about, name = path.stat(), str(path)
            receipt = receipt_of({"path": name}) or {}
            found.append({
                "path": name,
                "root": str(folder),
                "size_bytes": about.st_size,
                "sha256": receipt.get("sha256", ""),
                "users": [*kept.get(name, ()), *([PLANNED] if name in planned else ())],
                "file": f"{about.st_dev}:{about.st_ino}",
                "names": about.st_nlink,
            })  # fmt: skip
    return found


def with_uses(rows, paths):
    """Rows with their model and quant, the processes that use them, and when they were used."""
    models, used = {}, {}
    for instance, generation, document in stored_plans(paths):
        for path in document.get("shards") or ():
            models.setdefault(path, (document.get("model", ""), document.get("quant", "")))
            used.setdefault(path, set()).add((instance, generation))
    times, running = last_uses(paths), open_files()
    for row in rows:
        name = row["path"]
        pids = running.get(os.path.realpath(name), ())
        row["model"], row["quant"] = models.get(name, ("", ""))
        row["proved"] = shard_is_proved({"path": name, "sha256": row["sha256"]})
        row["users"] = [*row["users"], *(f"pid {pid}" for pid in pids)]
        last = max((times.get(one, "") for one in used.get(name, ())), default="")
        row["last_used"] = "now" if pids else last
    return rows


def stored_plans(paths):
    """Instance, generation and plan of each generation that is still here."""
    for path in sorted(Path(paths["state"]).glob("instances/*/generations/*/plan.json")):
        document = read_json(path)
        if isinstance(document, dict):
            yield path.parts[-4], path.parts[-2], document


def last_uses(paths):
    """(instance, generation) -> when it was last known to be put in use, or out of use."""
    found = {}
    for report in history(paths):
        for end in ("from", "to"):
            one = (report.get("instance"), report.get(end))
            found[one] = max(found.get(one, ""), str(report.get("at", ""))[:19])
    current = Path(paths["state"]).glob("instances/*/current")
    for link in current:
        name = link.parent.name
        if show(unit_of(name), "ActiveState")["ActiveState"] == "active":
            found[(name, Path(os.readlink(link)).name)] = now()
    return found


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())


def open_files():
    """Path -> ids of processes that have mapped it or hold it open."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        for path in set(paths_of(process)):
            found.setdefault(path, []).append(process.name)
    return found


def paths_of(process):
    """Files that a process has mapped or open; none of one that ended or is the kernel's."""
    with contextlib.suppress(OSError):
        yield from re.findall(r" (/[^\n]*)$", (process / "maps").read_text(), re.MULTILINE)
    with contextlib.suppress(OSError):
        for handle in os.listdir(process / "fd"):
            with contextlib.suppress(OSError):
                yield os.readlink(process / "fd" / handle)


def size_of_all(rows):
    """File -> its size; a file with several names counts once."""
    return {row["file"]: row["size_bytes"] for row in rows}


def freed_bytes(doomed):
    """Bytes that removing these rows frees: of files without another name."""
    names = {}
    for row in doomed:
        names[row["file"]] = names.get(row["file"], 0) + 1
    sizes = {row["file"]: row for row in doomed}
    return sum(
        sizes[file]["size_bytes"] for file, count in names.items() if count >= sizes[file]["names"]
    )


def partial_bytes(paths):
    """Bytes of downloads that have not ended."""
    staging = models_root(paths) / ".staging"
    return sum(map(taken_bytes, staging.iterdir())) if staging.is_dir() else 0


def disk(paths):
    numbers = os.statvfs(existing(models_root(paths)))
    return {
        "folder": str(models_root(paths)),
        "total_bytes": numbers.f_blocks * numbers.f_frsize,
        "free_bytes": numbers.f_bavail * numbers.f_frsize,
    }
