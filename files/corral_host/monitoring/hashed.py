"""When each file of weights was read whole for the last time, and reading them again bit by bit.

A flipped bit in a file of weights loads and serves: only its digest shows it.
"""

import json
import os
import time
from pathlib import Path

from corral_shared.names import RECEIPT

from corral_host.instance.unit_file import installed_generation
from corral_host.observe.kept import kept_plan
from corral_host.system.commands import read_json, say, sha256_of, write_atomic
from corral_host.weights.models_root import models_root, refuse, root_fault

RECORD = "hashed.json"
# All is read within a month, whatever was fetched since.
DAYS = 28


def record_path(paths):
    return Path(paths["state"]) / "monitoring" / RECORD


def read_record(paths):
    found = read_json(record_path(paths))
    known = found if isinstance(found, dict) else {}
    return {"credit_bytes": 0, "files": {}, **known}


def receipts(paths):
    """Path of each file of weights that has a receipt -> its receipt."""
    found = {}
    for path in sorted(models_root(paths).rglob(f"*{RECEIPT}")):
        receipt = read_json(path)
        if isinstance(receipt, dict) and "sha256" in receipt:
            found[str(path)[: -len(RECEIPT)]] = receipt
    return found


def hashed_at(path, record):
    """When a file was read whole: by this module, or when its receipt was written."""
    own = record["files"].get(path, {}).get("at", 0)
    try:
        return max(own, os.stat(f"{path}{RECEIPT}").st_mtime)
    except FileNotFoundError:
        return own


def corrupt(record):
    """Files that had other bytes than their receipt, and were not fetched again since."""
    return sorted(
        path
        for path, one in record["files"].items()
        if one.get("corrupt") and not os.path.exists(f"{path}{RECEIPT}")
    )


def weights(found, paths):
    """Samples: per instance when the oldest of its files was read, and files that are corrupt."""
    record = read_record(paths)
    for name, plan in installed(paths).items():
        files = plan.get("shards") or ()
        if files:
            oldest = min(hashed_at(path, record) for path in files)
            found.add("corral_weights_hashed_timestamp_seconds", oldest, instance=name)
    found.add("corral_weights_corrupt", len(corrupt(record)))


def installed(paths):
    """Instance -> the plan of its installed generation."""
    folders = sorted((Path(paths["state"]) / "instances").glob("*/generations"))
    units = {one.parent: f"{paths['units']}/corral-{one.parent.name}.service" for one in folders}
    return {
        folder.name: kept_plan(folder, installed_generation(unit)) for folder, unit in units.items()
    }


def roll(paths, budget_bytes=None):
    """Read the files that wait longest, as many as the budget of this and of earlier days allows.

    A file is read whole or not at all, so a budget below its size is saved up. A corrupt file loses
    its receipt, as by `corral verify --rehash`: the next deploy fetches it again. ``budget_bytes``:
    a day; None for so much that all is read within DAYS. Returns the paths that were read.
    """
    refuse(root_fault(paths))
    record, known = read_record(paths), receipts(paths)
    sizes = {path: os.path.getsize(path) for path in known if os.path.isfile(path)}
    budget = -(-sum(sizes.values()) // DAYS) if budget_bytes is None else budget_bytes
    most = max(sizes.values(), default=0)
    # What is saved up never exceeds a file: a host that was off for a month reads no month's worth.
    credit = min(record["credit_bytes"], most) + budget
    record["files"] = {path: one for path, one in record["files"].items()
                       if path in known or one.get("corrupt")}  # fmt: skip
    read = []
    for path in sorted(sizes, key=lambda path: (hashed_at(path, record), path)):
        if sizes[path] > credit:
            break
        credit -= sizes[path]
        prove(path, known[path]["sha256"], record)
        read.append(path)
        # After each file, so that a reboot loses one file's work at most.
        keep(paths, {**record, "credit_bytes": credit})
    keep(paths, {**record, "credit_bytes": credit})
    return read


def prove(path, sha256, record):
    is_whole = sha256_of(path) == sha256
    record["files"][path] = {"at": time.time(), **({} if is_whole else {"corrupt": True})}
    if not is_whole:
        say(f"{path} is corrupt: its bytes are not those that were locked")
        Path(f"{path}{RECEIPT}").unlink(missing_ok=True)


def keep(paths, record):
    path = record_path(paths)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    write_atomic(path, json.dumps(record, indent=1) + "\n")
