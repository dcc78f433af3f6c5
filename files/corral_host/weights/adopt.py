"""Bytes that are on this host already are linked in place of a download.

They are of another revision or repository, by their receipts; or files that somebody else put into
a folder, in any layout, by their sha256.
"""

import errno
import hashlib
import json
import os
import stat
from pathlib import Path

from corral_shared.names import MARKER, RECEIPT, STAGING

from corral_host.system.commands import CHUNK_BYTES, PROGRESS_BYTES, rename, say, sync, write_atomic
from corral_host.system.modes import EVERYBODY, FILE
from corral_host.weights.kept import proved_files
from corral_host.weights.models_root import models_root
from corral_host.weights.receipts import receipt_of, receipt_path, shard_is_proved, staging_path

FULL = (errno.ENOSPC, errno.EDQUOT)
# Beside what has arrived of a download, which stays until the shard is in place.
COPY = ".copy"
# Errors of file systems, or for files, that can have no second name.
UNLINKABLE = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOTSUP)


def roots(paths):
    """Folders with weights of Corral: the one in use, and the one beside its state."""
    return list(dict.fromkeys([models_root(paths), Path(paths["state"]) / "models"]))


def by_digest(paths):
    """sha256 -> a file with these bytes, of all that have an unbroken receipt."""
    found = {}
    for path in (one for root in roots(paths) for one in proved_files(root)):
        receipt = receipt_of({"path": str(path)})
        if receipt and shard_is_proved({"path": str(path), "sha256": receipt["sha256"]}):
            found.setdefault(receipt["sha256"], path)
    return found


def unproved_files(folder, sizes, *, receipts=False):
    """Files below a folder that have one of these sizes and no receipt, sorted.

    ``receipts``: also those with one, as in a folder of another installation.
    A link counts as the file that it leads to, as in the cache of huggingface_hub.
    """
    found = {}
    for here, below, names in os.walk(folder):
        if STAGING in below:
            below.remove(STAGING)
        for name in names:
            path = Path(here) / name
            known = f"{name}{RECEIPT}" in names and not receipts
            if name.endswith(RECEIPT) or name == MARKER or known:
                continue
            try:
                real = path.resolve()
                about = real.stat()
            except OSError:
                # A link to nothing, or a file that is gone by now.
                continue
            if stat.S_ISREG(about.st_mode) and about.st_size in sizes:
                found.setdefault((about.st_dev, about.st_ino), real)
    return sorted(found.values())


def is_near(path, paths):
    """Whether a file can be linked into the models root: it is on the same file system."""
    root = models_root(paths)
    return root.is_dir() and path.stat().st_dev == root.stat().st_dev


def here(missing, paths):
    """Paths of missing shards that need no download: their bytes, or files of their size, are here.

    Only files that can be linked: others need the space of a download.
    """
    if not missing:
        return set()
    digests = by_digest(paths)
    found = {one["path"] for one in missing if is_linked_from(digests.get(one["sha256"]), paths)}
    rest = [one for one in missing if one["path"] not in found]
    files = unproved_files(models_root(paths), {one["size_bytes"] for one in rest})
    sizes = {path.stat().st_size for path in files if is_near(path, paths)}
    return found | {one["path"] for one in rest if one["size_bytes"] in sizes}


def is_linked_from(path, paths):
    return path is not None and is_near(path, paths)


def adopt(missing, paths, folder=None, *, move=False):
    """Put shards in place whose bytes are on this host; returns those that still are missing.

    ``folder``: where files of others are; that of all weights if None. ``move``: they leave it.
    """
    left, digests = [], by_digest(paths)
    for shard in missing:
        source = digests.get(shard["sha256"])
        if source is None or not tried(shard, source, paths):
            left.append(shard)
    files = unproved_files(folder or models_root(paths), {one["size_bytes"] for one in left})
    for number, path in enumerate(files, start=1):
        say(f"file {number} of {len(files)}: {path.name}")
        taken = taken_from(path, left, paths)
        left = [one for one in left if one not in taken]
        if taken and move and not is_within(path, paths):
            path.unlink()
    return left


def taken_from(path, wanted, paths):
    """Those of these shards that were put in place from a file."""
    try:
        same_size = [one for one in wanted if one["size_bytes"] == path.stat().st_size]
        if not same_size:
            return []
        about, digest = hashed(path)
    except OSError as fault:
        say(f"{path} cannot be read: {fault.strerror}")
        return []
    mine = [one for one in same_size if one["sha256"] == digest]
    if not mine:
        say(f"{path}: as long as a file of the lock, with other bytes; it stays as it is")
    return [shard for shard in mine if tried(shard, path, paths, about)]


def tried(shard, source, paths, about=None):
    """Whether a shard was put in place; where it cannot be read it is fetched.

    Raises OSError on a full disk, where a download would not succeed either.
    """
    try:
        return put(shard, source, paths, about)
    except OSError as fault:
        if fault.errno in FULL:
            raise
        say(f"{source} cannot be used: {fault.strerror}")
        return False


def is_within(path, paths):
    root = Path(os.path.realpath(models_root(paths)))
    return root in path.parents


def hashed(path):
    """What a file was when it was read, and the sha256 of its bytes."""
    digest, done = hashlib.sha256(), 0
    with open(path, "rb") as file:
        about = os.fstat(file.fileno())
        while block := file.read(CHUNK_BYTES):
            digest.update(block)
            done += len(block)
            if done % PROGRESS_BYTES == 0:
                say(f"hashing {100 * done // max(about.st_size, 1)}% of {path.name}")
    return about, digest.hexdigest()


def put(shard, source, paths, about=None):
    """Link or copy a file to a shard's place, with a receipt; False if its bytes have changed.

    ``about``: what the file was when it was hashed; None for one that has a receipt.
    """
    place, staged = Path(shard["path"]), staging_path(shard, paths).with_suffix(COPY)
    before = about or source.stat()
    if place.exists() and os.path.samefile(place, source):
        return write_receipt(shard, place, before)
    staged.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    how = bring(shard, source, staged)
    if how == "linked" and not is_same(staged.stat(), before):
        staged.unlink()
        return False
    if how == "changed":
        staged.unlink()
        return False
    staged.chmod(staged.stat().st_mode & 0o777 | FILE & EVERYBODY)
    sync(staged)
    rename(staged, place)
    forget(staging_path(shard, paths))
    say(f"{place.name}: {how} from {source}, nothing is fetched")
    return write_receipt(shard, place)


def bring(shard, source, staged):
    """Make the staged file: as a link, else as a copy, which is proved while it is written."""
    staged.unlink(missing_ok=True)
    try:
        os.link(source, staged)
        return "linked"
    except OSError as fault:
        if fault.errno not in UNLINKABLE:
            raise
    digest, done = hashlib.sha256(), 0
    try:
        with open(source, "rb") as old, open(staged, "wb") as new:
            while block := old.read(CHUNK_BYTES):
                digest.update(block)
                new.write(block)
                done += len(block)
                if done % PROGRESS_BYTES == 0:
                    say(f"copying {100 * done // max(shard['size_bytes'], 1)}% of {source.name}")
    except OSError:
        staged.unlink(missing_ok=True)
        raise
    return "copied" if digest.hexdigest() == shard["sha256"] else "changed"


def is_same(one, other):
    """Whether a file is the one that was read, unchanged."""
    return all(
        getattr(one, name) == getattr(other, name)
        for name in ("st_dev", "st_ino", "st_size", "st_mtime_ns")
    )


def forget(staged):
    """Remove what has arrived of a download that is not needed any more."""
    for path in (staged, staged.with_name(f"{staged.name}.aria2")):
        path.unlink(missing_ok=True)


def write_receipt(shard, place, about=None):
    now = place.stat()
    if about and not is_same(now, about):
        return False
    found = {"sha256": shard["sha256"], "size_bytes": now.st_size, "mtime_ns": now.st_mtime_ns}
    write_atomic(receipt_path(shard), json.dumps({**found, "url": shard["url"]}, indent=2) + "\n")
    return True
