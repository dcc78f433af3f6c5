"""Requests of each alias at this host's gateway: by status, and histograms of their times.

HAProxy's own metrics have averages and classes of status alone, so its log is counted: what is new
in the journal since the last look, with the place where that ended.
"""

import json
import subprocess
import time
from bisect import bisect_left
from pathlib import Path

from corral_host.gateway.clients import LINE
from corral_host.gateway.generations import current
from corral_host.system.commands import FAULTS, HostError, read_json, say, write_atomic

# From a cached prompt to a long answer of a large model.
BOUNDS_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
HISTOGRAMS = {
    "first_byte": "corral_gateway_first_byte_seconds",
    "whole": "corral_gateway_request_seconds",
}
CURSOR = "-- cursor: "
# After a longer gap, as while nothing was monitored, the log in between is not read.
MOST_GAP_SECONDS = 600
# A journal that hangs must not keep all other figures back.
READ_SECONDS = 20


def requests(found, paths):
    """Samples of the requests since the first look; none of a host without a gateway."""
    if current(Path(paths["gateway"])) is None:
        return
    path, now = record_path(paths), time.time()
    record = kept(path, now)
    read_on(record, now)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    write_atomic(path, json.dumps(record) + "\n")
    samples(found, record["pools"])


def samples(found, pools):
    for pool, one in sorted(pools.items()):
        for status, count in sorted(one["statuses"].items()):
            found.add("corral_gateway_requests_total", count, proxy=pool, code=status)
        for part, metric in HISTOGRAMS.items():
            counts, total = one[part]["counts"], one[part]["total"]
            found.histogram(metric, BOUNDS_SECONDS, counts, total, proxy=pool)


def record_path(paths):
    return Path(paths["state"]) / "monitoring" / "requests.json"


def kept(path, now):
    """The counts so far; a damaged record begins anew, which a Prometheus sees as a restart."""
    try:
        document = read_json(path)
        return new(now) if document is None else parsed(document)
    except (*FAULTS, TypeError, AttributeError) as fault:
        say(f"{path}: {type(fault).__name__}: {fault}; requests are counted anew")
        return new(now)


def new(now):
    """``cursor``: of the journal, empty before the first line; ``at``: time of the last look."""
    return {"at": now, "cursor": "", "pools": {}}


def parsed(document):
    pools = {str(pool): parsed_pool(one) for pool, one in document["pools"].items()}
    return {"at": float(document["at"]), "cursor": str(document["cursor"]), "pools": pools}


def parsed_pool(one):
    found = {"statuses": {str(name): int(count) for name, count in one["statuses"].items()}}
    for part in HISTOGRAMS:
        counts = [int(count) for count in one[part]["counts"]]
        if len(counts) != len(BOUNDS_SECONDS) + 1:
            raise ValueError("histograms of another version")
        found[part] = {"counts": counts, "total": float(one[part]["total"])}
    return found


def empty_pool():
    counts = [0] * (len(BOUNDS_SECONDS) + 1)
    return {"statuses": {}, **{part: {"counts": [*counts], "total": 0} for part in HISTOGRAMS}}


def read_on(record, now):
    """Count what is new in the journal, and note where it ends."""
    if now - record["at"] > MOST_GAP_SECONDS:
        record.update(at=now, cursor="")
    # Before the first line there is no cursor; what precedes the first look is not counted.
    place = (
        f"--after-cursor={record['cursor']}" if record["cursor"] else f"--since=@{record['at']:.6f}"
    )
    for line in journal(place):
        if line.startswith(CURSOR):
            record["cursor"] = line[len(CURSOR) :].strip()
        else:
            count(line, record["pools"])
    # Whatever is written after that time is read the next time.
    record["at"] = now


def journal(place):
    command = (
        "journalctl", "--unit=haproxy", "--output=cat", "--no-pager", "--quiet", "--show-cursor",
        place,
    )  # fmt: skip
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=READ_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise HostError(f"journalctl does not end within {READ_SECONDS} s") from error
    said = done.stderr.decode(errors="replace").strip()
    # With --show-cursor it ends with 1, and says nothing, where there is no line (systemd 252).
    if done.returncode != 0 and (said or done.stdout or done.returncode != 1):
        raise HostError(f"journalctl failed ({done.returncode}): {said}")
    return done.stdout.decode(errors="replace").splitlines()


def count(line, pools):
    """Add a line of the log; other lines are none of a request."""
    found = LINE.search(line)
    if not found:
        return
    pool = pools.setdefault(found["pool"], empty_pool())
    # HAProxy has -1 where the client left before an answer.
    status = "none" if found["status"] == "-1" else found["status"]
    pool["statuses"][status] = pool["statuses"].get(status, 0) + 1
    times = found["times"].split("/")
    if len(times) != 5:
        return
    # Milliseconds: the request, its queue, the connection, the server's first byte; and all.
    *parts, whole = (int(one) for one in times)
    if min(parts) < 0:
        # No server answered.
        return
    observe(pool["first_byte"], sum(parts) / 1000)
    observe(pool["whole"], whole / 1000)


def observe(histogram, seconds):
    histogram["counts"][bisect_left(BOUNDS_SECONDS, seconds)] += 1
    histogram["total"] += seconds
