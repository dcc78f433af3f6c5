"""What this host has of a shard: its receipt, or the bytes that have arrived so far."""

from pathlib import Path

from corral_shared.names import RECEIPT, STAGING

from corral_host.system.commands import read_json
from corral_host.weights.models_root import models_root, taken_bytes

# Beside staged files: the folder of those that aria2 of a swarm writes to.
LENT = "swarm"


def receipt_path(shard):
    return Path(f"{shard['path']}{RECEIPT}")


def staging_path(shard, paths):
    return models_root(paths) / STAGING / shard["sha256"]


def arrived_bytes(staged):
    """Bytes on the disk, not the file's length: aria2 writes to several places at once."""
    return taken_bytes(staged) + taken_bytes(staged.parent / LENT / staged.name)


def receipt_of(shard):
    """The receipt of a file; None if there is none that can be read."""
    found = read_json(receipt_path(shard))
    whole = isinstance(found, dict) and {"sha256", "size_bytes", "mtime_ns"} <= found.keys()
    return found if whole else None


def shard_is_proved(shard):
    receipt, path = receipt_of(shard), Path(shard["path"])
    if not receipt or not path.is_file() or receipt["sha256"] != shard["sha256"]:
        return False
    found = path.stat()
    return [found.st_size, found.st_mtime_ns] == [receipt["size_bytes"], receipt["mtime_ns"]]


def shard_state(shard, paths):
    """``proved``: there is a receipt with this digest, and the file is unchanged since then."""
    staged = staging_path(shard, paths)
    return {"proved": shard_is_proved(shard), "staged_bytes": arrived_bytes(staged)}
