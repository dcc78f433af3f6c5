"""Adopt files that an operator names: a folder in which another program keeps its weights."""

from pathlib import Path

from corral_host.system.commands import HostError, say
from corral_host.weights.adopt import is_near, is_within, taken_from, unproved_files
from corral_host.weights.fetch import refuse_elsewhere
from corral_host.weights.models_root import crossing, mark, refuse, root_fault
from corral_host.weights.receipts import shard_is_proved


def adopt_folder(spec):
    """Put files of the lock in place that are in a folder, in any layout.

    ``spec``: paths, folder, move (files leave the folder), shards: all of the lock, each with
    ``planned``. Files that no plan needs are only linked, never copied. Returns the adopted paths.
    """
    paths, folder = spec["paths"], Path(spec["folder"])
    if not folder.is_absolute() or not folder.is_dir():
        raise HostError(f"{folder} is not a folder of this host", "name one by its whole path")
    refuse(root_fault(paths))
    missing = [shard for shard in spec["shards"] if not shard_is_proved(shard)]
    for shard in missing:
        refuse_elsewhere(shard, paths)
        refuse(crossing(shard["path"], paths))
    mark(paths)
    files = unproved_files(folder, {one["size_bytes"] for one in missing}, receipts=True)
    adopted = []
    for number, path in enumerate(files, start=1):
        say(f"file {number} of {len(files)}: {path.name}")
        near = is_near(path, paths)
        wanted = [one for one in missing if near or one["planned"]]
        taken = taken_from(path, wanted, paths)
        missing = [one for one in missing if one not in taken]
        adopted += [{"path": one["path"], "source": str(path)} for one in taken]
        if taken and spec["move"] and not is_within(path, paths):
            path.unlink()
    left = [one["path"] for one in missing if one["planned"]]
    return {"adopted": adopted, "files": len(files), "missing": left}
