"""The models root, the folder of all weights. If its disk is not mounted, that is reported.

Without this check the weights would be fetched again, onto the disk below. A marker in the root
identifies it, and the state folder keeps a copy. The root may be a link or a file system of its
own, but only one: weights are put in place by a rename.
"""

import os
import re
import secrets
from pathlib import Path
from urllib.parse import quote

from corral_shared.names import MARKER, STAGING

from corral_host.system.commands import HostError, write_atomic

FSTAB = Path("/etc/fstab")
ESCAPED = re.compile(r"\\([0-7]{3})")
# ProtectHome= and PrivateTmp= of a server's unit replace these.
HIDDEN = tuple(map(Path, ("/home", "/root", "/run/user", "/tmp", "/var/tmp")))
MOUNT = re.compile(r"^mnt_id:\s*(\d+)$", re.MULTILINE)


def models_root(paths):
    """The folder that the inventory names, else the one beside all other state."""
    return Path(paths.get("models_folder") or f"{paths['state']}/models")


def record(paths):
    """The copy of the root's marker; of each folder its own, as a revert needs the one before."""
    folder = paths.get("models_folder")
    return Path(paths["state"]) / f"models-root{quote(folder or '', safe='')}"


def root_state(paths, fault, missing):
    """State of the models root. ``fault``: from `root_fault`; ``missing``: shards to put there."""
    faults = (out_of_sight(paths), *(crossing(one["path"], paths) for one in missing))
    found = fault or next(filter(None, faults), None)
    what, next_step = found or ("", "")
    left = [] if fault else unwanted(missing, paths)
    return {
        "problem": what,
        "next_step": next_step,
        "marked": not fault and is_marked(paths),
        "unwanted_bytes": sum(map(taken_bytes, left)),
    }


def taken_bytes(path):
    """Bytes of a file on the disk; 0 if a running download has moved it meanwhile."""
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def unwanted(missing, paths):
    """Staged files of shards that no plan has any more."""
    wanted = {shard["sha256"] for shard in missing}
    folder = models_root(paths) / STAGING
    found = sorted(folder.iterdir()) if folder.is_dir() else ()
    # aria2 keeps its control file beside a download, as DIGEST.aria2.
    return [one for one in found if one.name.partition(".")[0] not in wanted and one.is_file()]


def root_fault(paths):
    """What is wrong with the root, and the next step; None if nothing is."""
    root = models_root(paths)
    try:
        known, here = text(record(paths)), text(root / MARKER)
        if known is not None and known == here:
            return None
        place = unmounted(root)
        if place:
            step = f"mount {place}, or take its line out of {FSTAB}"
            return f"{root}: nothing is mounted at {place}", step
        if root.is_symlink() and not root.exists():
            return f"{root} is a link to what is not there", f"mount {os.readlink(root)}"
        if root.exists() and not root.is_dir():
            return f"{root} is not a folder", f"move it away: mv {root} {root}.old"
        if known is None:
            return None
    except OSError as fault:
        return f"{root} cannot be read: {fault.strerror or fault}", "see dmesg, mount it again"
    what = f"{root} is not where the weights were put: its disk is not mounted, or was replaced"
    return what, f"mount it; or, if the weights are gone for good: rm {record(paths)}"


def out_of_sight(paths):
    """Why servers, which run as users of their own, cannot see the root; or None."""
    if not paths.get("models_folder"):
        return None
    root = models_root(paths)
    real = Path(os.path.realpath(root))
    for hidden in HIDDEN:
        if hidden in (real, *real.parents):
            what = f"{root} leads to {real}, which servers cannot see: they have no {hidden}"
            return what, f"mount it elsewhere: mount --bind {real} /srv/models"
    for folder in real.parents:
        if folder.is_dir() and not folder.stat().st_mode & 0o001:
            return f"{folder} is closed to the users of servers", f"chmod o+x {folder}"
    return None


def text(path):
    return path.read_text(errors="replace") if path.is_file() else None


def unmounted(root):
    """Mount point in /etc/fstab, at or above the folder, where nothing is mounted; or None."""
    real = Path(os.path.realpath(root))
    for line in (text(FSTAB) or "").splitlines():
        named = "" if line.lstrip().startswith("#") else "".join(line.split()[1:2])
        place = Path(ESCAPED.sub(lambda found: chr(int(found[1], 8)), named))
        meant = Path(os.path.realpath(place))
        if place.is_absolute() and meant in (real, *real.parents) and not is_mounted(meant):
            return place
    return None


def is_mounted(place):
    # os.path.ismount sees no bind mount of the same file system.
    return place.is_dir() and (place == place.parent or disk_of(place) != disk_of(place.parent))


def is_marked(paths):
    """Whether the host can recognize its disk; a read-only one cannot be marked and counts, too."""
    root = models_root(paths)
    if record(paths).is_file() or not root.is_dir():
        return record(paths).is_file()
    return bool(os.statvfs(root).f_flag & os.ST_RDONLY) and not (root / MARKER).is_file()


def existing(path):
    """A path, or its first parent that exists."""
    found = Path(path)
    while not found.exists():
        found = found.parent
    return found


def disk_of(path):
    """Device and mount on which a path is, or will be: a rename crosses neither."""
    handle = os.open(existing(path), os.O_PATH)
    try:
        known = Path(f"/proc/self/fdinfo/{handle}").read_text()
        return os.fstat(handle).st_dev, MOUNT.search(known).group(1)
    finally:
        os.close(handle)


def crossing(path, paths):
    """Why a shard cannot be put in place by a rename, and the next step; or None."""
    root, folder = models_root(paths), Path(path).parent
    staging = root / STAGING
    if disk_of(folder) == disk_of(staging):
        return None
    what = f"{folder} is on another file system than {staging}, where its weights arrive"
    return what, f"mount one at {root} for all weights, or make that folder a link to one"


def refuse(found):
    """Raises HostError for a problem that one of these functions found."""
    if found:
        raise HostError(f"{found[0]}. Nothing was fetched", found[1])


def mark(paths):
    """Mark the root before weights are put there, also one that has weights already."""
    root = models_root(paths)
    refuse(root_fault(paths))
    for folder in (root, record(paths).parent):
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    if is_marked(paths):
        return
    if not (root / MARKER).is_file():
        write_atomic(root / MARKER, f"{secrets.token_hex(16)}\n")
    write_atomic(record(paths), (root / MARKER).read_text())
