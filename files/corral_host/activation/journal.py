"""What an activation is about to do, on the disk before it does it (activating.json).

Whoever finds it when the activation is gone takes it back, or ends it if it was decided to keep.
"""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

from corral_host.activation.activation import from_document
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
    return from_document(found) if found and "report" in found else None


def run_of(folder):
    """Which run of a job wrote the unfinished activation of an instance, or None."""
    activation = load(folder)
    return activation and activation.report.get("run")


def save(activation):
    write_atomic(journal(activation.folder), json.dumps(activation.document()))


def decide_to_keep(activation):
    """From here on the generation is kept, whatever happens; before, it is reverted.

    Raises OSError, as with a full disk: then nothing is decided.
    """
    folder = Path(activation.folder)
    receipt = {"generation": activation.new, "at": time.time(), "invocation": activation.proved}
    write_atomic(folder / f"{RECEIPT}{NEW}", json.dumps(receipt) + "\n")
    write_atomic(f"{kept_plan(activation)}{NEW}", as_kept(activation.plan))
    for link, target in new_links(activation).items():
        path = folder / f"{link}{NEW}"
        path.unlink(missing_ok=True)
        path.symlink_to(f"generations/{target}")
    save(replace(activation, kept=True))


def new_links(activation):
    old, new = activation.old, activation.new
    moved = old and old != new and (Path(activation.folder) / "generations" / old).is_dir()
    return {"current": new, **({"previous": old} if moved else {})}


def put_in_place(activation):
    """Links, receipt and plan of a kept generation; what is done already stays."""
    folder = Path(activation.folder)
    for path in (
        *(folder / name for name in (*new_links(activation), RECEIPT)),
        kept_plan(activation),
    ):
        if os.path.lexists(f"{path}{NEW}"):
            rename(f"{path}{NEW}", path)


def kept_plan(activation):
    return plan_path(activation.folder, activation.new)


def forget(activation):
    """Nothing is unfinished any more; the last step of each activation."""
    folder = Path(activation.folder)
    for name in ("current", "previous", RECEIPT):
        (folder / f"{name}{NEW}").unlink(missing_ok=True)
    Path(f"{kept_plan(activation)}{NEW}").unlink(missing_ok=True)
    journal(folder).unlink(missing_ok=True)
    sync(folder)
