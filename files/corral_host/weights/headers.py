"""Models with headers only, to prove the fit: sparse files, whose data are holes."""

import contextlib
import fcntl
import hashlib
import http.client
import os
import shutil
import sys
import time
from pathlib import Path

from corral_shared.text import printable_line

from corral_host.system.commands import HostError, say
from corral_host.system.locks import lock_file, lock_path
from corral_host.weights import hub
from corral_host.weights.fetch import PATIENCE_SECONDS, REFUSALS, ask_hub, refuse_status
from corral_host.weights.receipts import shard_is_proved

# A file system rounds a header up to whole blocks, and keeps a list of them.
BLOCKS_BYTES = 1024 * 1024
PAUSE_SECONDS = 1
TOO_SHORT = 416


@contextlib.contextmanager
def proof_folder(paths):
    """A folder for one proof at a time; leftovers of a killed one are removed first."""
    root = Path(paths["state"]) / "proofs"
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    root.chmod(0o700)
    with lock_file(lock_path(paths["state"], "proofs")) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            clear(root)
            yield root
        finally:
            clear(root)


def clear(root):
    for leftover in root.iterdir():
        shutil.rmtree(leftover)


def put(shard, folder):
    """Put a shard into a folder under its own name, by which engines find shards.

    A shard that is on the host is linked; of another one only the header is fetched.
    """
    path = folder / Path(shard["path"]).name
    if shard_is_proved(shard):
        path.symlink_to(shard["path"])
        return path
    path.write_bytes(fetch_header(shard))
    os.truncate(path, shard["size_bytes"])
    used = path.stat().st_blocks * 512
    if used > shard["header"]["size_bytes"] + BLOCKS_BYTES:
        raise HostError(
            f"{folder}: its file system has no sparse files, a header took {used} bytes",
            "mount one there that has, such as ext4 or xfs",
        )
    return path


def fetch_header(shard):
    """The bytes before the data of a shard, proved by their digest."""
    with contextlib.redirect_stdout(sys.stderr):
        ask_hub(shard)
        data = patiently(shard)
    found = hashlib.sha256(data).hexdigest()
    if found != shard["header"]["sha256"]:
        raise HostError(
            f"{shard['url']}: the hub sent a header with sha256 {found[:16]}..., the plan has "
            f"{shard['header']['sha256'][:16]}.... Nothing was fetched",
            "run the deploy again; if it repeats, the hub serves other bytes to this host",
        )
    return data


def patiently(shard):
    """Retry for as long as a download of the weights does."""
    since = time.monotonic()
    while True:
        try:
            return first_bytes(shard)
        except (http.client.HTTPException, OSError) as error:
            problem = printable_line(error) or type(error).__name__
        if time.monotonic() - since > PATIENCE_SECONDS:
            raise HostError(
                f"{shard['url']}: no byte arrived for {PATIENCE_SECONDS} s ({problem})",
                "check that this host reaches the hub, run the deploy again",
            )
        say(f"the header of {Path(shard['path']).name} did not arrive: {problem}")
        time.sleep(PAUSE_SECONDS)


def first_bytes(shard):
    """Request a range once. Raises OSError for a fault that may pass, else HostError."""
    wanted = shard["header"]["size_bytes"]
    headers = {"Range": f"bytes=0-{wanted - 1}"}
    answer = hub.follow(shard["url"], headers, shard.get("token"))
    with contextlib.closing(answer):
        refuse_another_file(shard, answer)
        data = hub.read(answer, wanted)
    if len(data) < wanted:
        raise OSError(f"cut after {len(data)} of {wanted} bytes")
    return data


def refuse_another_file(shard, answer):
    refuse_status(shard, answer.status, (*REFUSALS, TOO_SHORT))
    if answer.status >= 400:
        raise OSError(f"the hub answers {answer.status}")
    if answer.status != 206:
        raise HostError(
            f"{shard['url']}: the hub serves no ranges, it answered {answer.status} for a header. "
            "Nothing was fetched",
            "set hub_url to a hub that serves ranges",
        )
    span = answer.headers.get("Content-Range", "")
    total = span.rpartition("/")[2]
    if not span.startswith("bytes 0-") or total != str(shard["size_bytes"]):
        raise HostError(
            f"{shard['url']}: the hub says {printable_line(total[:24]) or 'nothing of'} bytes, "
            f"the lock says {shard['size_bytes']}. Nothing was fetched",
            "`corral lock`, or another hub_url",
        )
