"""What an activation is about to do, on the disk before it does it (activating.json).

Whoever finds it when the activation is gone takes it back, or ends it if it was decided to keep.
"""

import json
import os
import time
from pathlib import Path

from corral_host.instance.stored_plan import as_kept, plan_path
from corral_host.system.commands import read_json, rename, sync, write_atomic

JOURNAL = "activating.json"
RECEIPT = "receipt.json"
# Prepared beside what they replace, so that the last steps are renames.
NEW = ".new"


def journal(folder):
    return Path(folder) / JOURNAL


def load(folder):
    """The unfinished activation of an instance, or None."""
    found = read_json(journal(folder))
    return found if found and "report" in found else None


def run_of(folder):
    """Which run of a job wrote the unfinished activation of an instance, or None."""
    task = load(folder)
    return task and task["report"].get("run")


def save(task):
    write_atomic(journal(task["folder"]), json.dumps(task))


def decide_to_keep(task):
    """From here on the generation is kept, whatever happens; before, it is taken back.

    Raises OSError, as with a full disk: then nothing is decided.
    """
    folder = Path(task["folder"])
    receipt = {"generation": task["to"], "at": time.time(), "invocation": task["proved"]}
    write_atomic(folder / f"{RECEIPT}{NEW}", json.dumps(receipt) + "\n")
    write_atomic(f"{kept_plan(task)}{NEW}", as_kept(task["after"]))
    for link, target in new_links(task).items():
        path = folder / f"{link}{NEW}"
        path.unlink(missing_ok=True)
        path.symlink_to(f"generations/{target}")
    save({**task, "kept": True})


def new_links(task):
    old, new = task["from"], task["to"]
    moved = old and old != new and (Path(task["folder"]) / "generations" / old).is_dir()
    return {"current": new, **({"previous": old} if moved else {})}


def put_in_place(task):
    """Links, receipt and plan of a kept generation; what is done already stays."""
    folder = Path(task["folder"])
    for path in (*(folder / name for name in (*new_links(task), RECEIPT)), kept_plan(task)):
        if os.path.lexists(f"{path}{NEW}"):
            rename(f"{path}{NEW}", path)


def kept_plan(task):
    return plan_path(task["folder"], task["to"])


def forget(task):
    """Nothing is unfinished any more; the last step of each activation."""
    folder = Path(task["folder"])
    for name in ("current", "previous", RECEIPT):
        (folder / f"{name}{NEW}").unlink(missing_ok=True)
    Path(f"{kept_plan(task)}{NEW}").unlink(missing_ok=True)
    journal(folder).unlink(missing_ok=True)
    sync(folder)
