"""Fetch shards: into a staging folder, check sha256 against the lock, rename, write a receipt."""

import contextlib
import http.client
import json
import os
import re
import subprocess
import time
from pathlib import Path

from corral_shared.names import weights_path_problem
from corral_shared.text import printable_line

from corral_host.system.commands import (
    ARIA2_DISK_FULL,
    HostError,
    disk_full,
    rename,
    say,
    sha256_of,
    sync,
    write_atomic,
)
from corral_host.weights import hub
from corral_host.weights.adopt import adopt, forget
from corral_host.weights.models_root import (
    crossing,
    mark,
    models_root,
    refuse,
    root_fault,
    unwanted,
)
from corral_host.weights.receipts import arrived_bytes, receipt_path, shard_is_proved, staging_path

SHA256 = re.compile(r"[0-9a-f]{64}")

# aria2 resumes and splits. Its own retries cover a short interruption, ours an outage of the hub.
ARIA2 = (
    "--continue=true", "--allow-overwrite=true", "--auto-file-renaming=false",
    "--file-allocation=none", "--split=4", "--max-connection-per-server=4",
    "--min-split-size=64M", "--max-tries=3", "--retry-wait=2", "--connect-timeout=10",
    "--timeout=30", "--lowest-speed-limit=8K", "--auto-save-interval=5", "--summary-interval=2",
    "--console-log-level=warn", "--enable-color=false", "--follow-torrent=false",
    "--follow-metalink=false", "--no-netrc=true", "--no-conf=true", "--download-result=hide",
    # What other hosts gave came in pieces of another size.
    "--allow-piece-length-change=true",
)  # fmt: skip
NO_ANSWER = -1
REFUSALS = (401, 403, 404)
PATIENCE_SECONDS = 30
PAUSE_SECONDS = 3
# A hub that sends less than this in PATIENCE_SECONDS would keep a download running for ever.
LEAST_BYTES = PATIENCE_SECONDS * 8 * 1024
WATCH_SECONDS = 0.5
STOP_SECONDS = 10


def fetch(spec):
    """Fetch what is missing of ``shards``, and remove staged files that belong to none of them.

    ``spec``: paths, shards (all that the plan of this host misses), token.
    """
    fetch_missing(spec, forget=True)


def fetch_missing(spec, *, forget=False):
    """Fetch what is missing of ``shards``; ``forget``: these are all, others are removed."""
    missing, twins = apart(to_fetch(spec, forget=forget))
    fetch_all(missing, spec["paths"])
    link_twins(twins, spec["paths"])


def to_fetch(spec, *, forget=False):
    """Those of ``shards`` whose bytes are not on this host; see `fetch_missing`."""
    paths = spec["paths"]
    refuse(root_fault(paths))
    shards = hub.with_token(spec["shards"], spec.get("token"))
    missing = [shard for shard in shards if not shard_is_proved(shard)]
    for shard in missing:
        refuse_elsewhere(shard, paths)
        refuse(crossing(shard["path"], paths))
    mark(paths)
    if forget:
        forget_unwanted(missing, paths)
    return adopt(missing, paths)


def apart(missing):
    """The first shard of each digest, and the others: as in two revisions, or two repositories."""
    first = {}
    for shard in missing:
        first.setdefault(shard["sha256"], shard)
    return list(first.values()), [one for one in missing if one is not first[one["sha256"]]]


def link_twins(twins, paths):
    """Put shards in place whose bytes have arrived under another name."""
    if twins:
        fetch_all(adopt(twins, paths), paths)


def fetch_all(missing, paths):
    """Fetch shards from the hub, one after the other."""
    for number, shard in enumerate(missing, start=1):
        say(f"shard {number} of {len(missing)}: {Path(shard['path']).name}")
        # Hours may have passed since the last shard.
        refuse(root_fault(paths))
        fetch_shard(shard, staging_path(shard, paths))


def refuse_elsewhere(shard, paths):
    """Raises HostError for a path outside of the models root, or for an address that is none.

    A link below the models root counts as its target.
    """
    models, path = f"{models_root(paths)}/", shard["path"]
    is_below = path.startswith(models)
    problem = weights_path_problem(path[len(models) :]) if is_below else "is not below it"
    if not problem and not os.path.realpath(path).startswith(f"{os.path.realpath(models)}/"):
        problem = "leads out of the models folder"
    if problem:
        raise HostError(
            f"{printable_line(path)}: its place in {models} {problem}. Nothing was fetched",
            "`corral lock`, read the diff of corral.lock",
        )
    # A line of aria2's input that begins with a space is an option.
    if not hub.ADDRESS.fullmatch(shard["url"]) or not SHA256.fullmatch(shard["sha256"]):
        raise HostError(
            f"{printable_line(shard['url'])}: not an address and digest to fetch by. Nothing was "
            "fetched",
            "check hub_url in the inventory, then `corral lock`",
        )


def forget_unwanted(missing, paths):
    """Remove staged files that no shard needs; only one download at a time runs on a host."""
    for path in unwanted(missing, paths):
        say(f"removed {path.name[:16]}... of {path.stat().st_size} bytes: no shard needs it")
        path.unlink()


def fetch_shard(shard, staged, digest_of=sha256_of):
    """Fetch a shard from the hub and put it in place; ``digest_of``: called as `sha256_of`."""
    path = Path(shard["path"])
    make_folders(shard, staged)
    ask_hub(shard)
    download(shard, staged)
    size = staged.stat().st_size
    found = digest_of(staged, lambda done: say(f"proving {percent(done, size)} of {path.name}"))
    if found != shard["sha256"]:
        staged.unlink()
        raise HostError(
            f"{path.name}: the hub sent {size} bytes with sha256 {found[:16]}..., the lock says "
            f"{shard['size_bytes']} bytes with {shard['sha256'][:16]}.... Nothing was replaced",
            f"run the deploy again; if it repeats, {shard['url']} serves other bytes than the lock",
        )
    put_in_place(shard, staged)


def make_folders(shard, staged):
    """The folders of a shard, and of what arrives of it."""
    staged.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    Path(shard["path"]).parent.mkdir(parents=True, exist_ok=True)


def put_in_place(shard, staged, about=None):
    """Rename a staged file that has the locked digest, and write its receipt.

    ``about``: what stat said of it when it was proved, where something may still have it open.
    """
    path = Path(shard["path"])
    sync(staged)
    rename(staged, path)
    about = about or path.stat()
    found = {
        "sha256": shard["sha256"], "size_bytes": about.st_size, "mtime_ns": about.st_mtime_ns
    }  # fmt: skip
    write_atomic(receipt_path(shard), json.dumps({**found, "url": shard["url"]}, indent=2) + "\n")


def percent(done, total):
    return f"{100 * done // max(total, 1)}%"


def ask_hub(shard):
    """Refuse another revision or size before the first byte of a large file is requested."""

    try:
        answer = hub.ask(shard["url"], method="HEAD", timeout=10, token=shard.get("token"))
    except (http.client.HTTPException, OSError) as error:
        say(f"the hub did not answer yet: {printable_line(error)}")
        return
    refuse_status(shard, answer.status)
    revision, size = answer.headers.get("X-Repo-Commit"), answer.headers.get("X-Linked-Size")
    if revision and revision != shard["revision"]:
        raise HostError(
            f"{shard['url']}: the hub answers revision {printable_line(revision[:12])}, the lock "
            f"says {shard['revision'][:12]}. Nothing was fetched",
            "`corral lock`, or another hub_url",
        )
    if size and size.strip() != str(shard["size_bytes"]):
        raise HostError(
            f"{shard['url']}: the hub says {printable_line(size[:24])} bytes, the lock says "
            f"{shard['size_bytes']}. Nothing was fetched",
            "`corral lock`, or another hub_url",
        )


def refuse_status(shard, status, refusals=REFUSALS):
    """Raises HostError for a status that will not change by waiting."""
    if status not in refusals:
        return
    step = "check that the repository has this file and that this host may read it"
    if shard.get("gated") and status in (401, 403):
        step = "set HF_TOKEN where you deploy from, of an account with access, deploy again"
    raise HostError(f"{shard['url']}: the hub answers {status}. Nothing was fetched", step)


def place_of(shard):
    """The address for aria2, which must not get the token: it sends headers along redirects.

    Raises HostError, OSError, HTTPException.
    """
    if not shard.get("token"):
        return shard["url"]
    status, place = hub.lent(shard["url"], shard["token"])
    refuse_status(shard, status)
    if status >= 400:
        raise OSError(f"the hub answers {status}")
    if not (place or "").startswith("https://"):
        raise HostError(
            f"{shard['url']}: the hub redirects this host to no storage with an https address. "
            "Nothing was fetched",
            "set hub_url to a mirror of yours",
        )
    return place


def download(shard, staged):
    """Retry until no byte has arrived for a while; each try resumes from what has arrived.

    Each try asks the hub for the address again, as signed addresses expire.
    """
    had, since = arrived_bytes(staged), time.monotonic()
    while True:
        code = attempt(shard, staged)
        if code == 0:
            return
        if code == ARIA2_DISK_FULL:
            raise disk_full(staged.parent)
        arrived = arrived_bytes(staged)
        if arrived - had >= LEAST_BYTES:
            had, since = arrived, time.monotonic()
        if time.monotonic() - since > PATIENCE_SECONDS:
            raise HostError(
                f"{shard['url']}: {max(arrived - had, 0)} bytes arrived in {PATIENCE_SECONDS} s; "
                "what came before is kept",
                "check that this host reaches the hub, run the deploy again",
            )
        say(f"download stopped at {percent(arrived, shard['size_bytes'])}, asking the hub again")
        time.sleep(PAUSE_SECONDS)


def attempt(shard, staged):
    """Try once; returns aria2's exit code, or NO_ANSWER if the hub did not answer."""
    try:
        place = place_of(shard)
    except (http.client.HTTPException, OSError) as error:
        say(f"the hub did not answer: {printable_line(error)}")
        return NO_ANSWER
    return transfer(shard, place, staged)


def transfer(shard, place, staged):
    """Run aria2 once; returns its exit code. Raises HostError if the hub sends too much."""
    # By standard input, where an address cannot be taken for an option.
    line = f"{place}\n  dir={staged.parent}\n  out={staged.name}\n"
    running = subprocess.Popen(
        ["aria2c", *ARIA2, "--input-file=-"], stdin=subprocess.PIPE, text=True
    )
    try:
        with contextlib.suppress(BrokenPipeError):
            running.stdin.write(line)
            running.stdin.close()
        while running.poll() is None and not is_longer(shard, staged):
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(WATCH_SECONDS)
    finally:
        end(running)
    # A hub may send without end; stop it at the locked size.
    if is_longer(shard, staged):
        forget(staged)
        raise HostError(
            f"{shard['url']}: the hub sends more than the {shard['size_bytes']} bytes of the lock. "
            "Nothing was kept",
            "`corral lock`, or another hub_url",
        )
    return running.returncode


def is_longer(shard, staged):
    return staged.exists() and staged.stat().st_size > shard["size_bytes"]


def end(running):
    if running.poll() is None:
        running.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(STOP_SECONDS)
    if running.poll() is None:
        running.kill()
    running.wait()


def rehash(plan):
    """Read every byte again. A corrupt shard loses its receipt, so a deploy fetches it again."""
    rows = []
    for shard in plan["shards"]:
        path = Path(shard["path"])
        found = sha256_of(path) if path.is_file() else None
        if found is not None and found != shard["sha256"]:
            receipt_path(shard).unlink(missing_ok=True)
        detail = "absent" if found is None else f"sha256 {found[:16]}"
        rows.append({"path": str(path), "ok": found == shard["sha256"], "detail": detail})
    return rows
