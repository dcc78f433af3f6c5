"""Whether the weights of an instance are where its plan says, from the names of files alone."""

import os
from pathlib import Path

from corral_host.weights.models_root import models_root, root_fault, unmounted


def weights_fault(instance, paths):
    """Why files of its model are absent, and the next step; None if none is.

    A server that runs goes on without them until it is started again.
    """
    wanted = instance.get("shards") or ()
    root = models_root(paths)
    if any(root in Path(path).parents for path in wanted):
        fault = root_fault(paths)
        if fault:
            return fault
    # The folder of an earlier plan has no record of its own here.
    absent = [path for path in wanted if not os.path.exists(path)]
    if not absent:
        return None
    place = unmounted(Path(absent[0]))
    if place:
        return f"{absent[0]}: nothing is mounted at {place}", f"mount {place}"
    what = f"{len(absent)} of {len(wanted)} files of its model are absent, such as {absent[0]}"
    return what, "mount the disk that has them, or deploy this host, which fetches them again"


def weights_row(instance, paths):
    """A row of verify."""
    fault = weights_fault(instance, paths)
    found = f"{len(instance.get('shards') or ())} files" if not fault else ". Next: ".join(fault)
    return {"instance": instance["name"], "check": "weights", "ok": not fault, "detail": found}
