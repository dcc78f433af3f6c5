"""The journal of an activation (activating.json), on disk before each step that it describes.

If the activation's process dies, whoever finds the journal finishes the activation if the decision
to keep it was written, else reverts it.
"""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

from corral_host.activation.activation import from_document
from corral_host.instance.stored_plan import as_kept, forget_staged, plan_path
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
    """Id of the job's run that wrote the unfinished activation of an instance, or None."""
    activation = load(folder)
    return activation and activation.report.get("run")


def save(activation):
    write_atomic(journal(activation.folder), json.dumps(activation.document()))


def decide_to_keep(activation):
    """The point of no return: interrupted before it, the generation is reverted; after it, kept.

    Raises OSError, such as for a full disk: then nothing is decided.
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
    """Rename the links, receipt and plan of a kept generation into place; may run twice."""
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
    """Remove the journal, the last step of each activation: no generation waits for one now."""
    folder = Path(activation.folder)
    forget_staged(folder)
    for name in ("current", "previous", RECEIPT):
        (folder / f"{name}{NEW}").unlink(missing_ok=True)
    Path(f"{kept_plan(activation)}{NEW}").unlink(missing_ok=True)
    journal(folder).unlink(missing_ok=True)
    sync(folder)
