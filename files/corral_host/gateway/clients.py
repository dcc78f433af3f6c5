"""Requests by client, from the log of HAProxy, which has the names of clients."""

import re
import subprocess

from corral_host.system.commands import HostError

# As of "option httplog": frontend, server, times, status, bytes, cookies and flags, connections,
# queues, captured names, request.
LINE = re.compile(
    r" clients-(?P<pool>[A-Za-z0-9.:_-]+)~? \S+ (?P<times>[-0-9/+]+) (?P<status>[-0-9]+) "
    r"\S+ \S+ \S+ \S{4} [0-9/+]+ [0-9/]+ (?:\{(?P<client>[A-Za-z0-9._@-]*)\} )?\""
)


def clients(question):
    """Count requests of the last ``seconds`` for each pool and client.

    A request without a right key is counted as refused, of no client.
    """
    command = [
        "journalctl", "--unit=haproxy", f"--since=-{int(question['seconds'])}s", "--output=cat",
        "--no-pager", "--quiet",
    ]  # fmt: skip
    counts = {}
    try:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, errors="replace"
        ) as running:
            for line in running.stdout:
                count(line, counts)
    except OSError as error:
        raise HostError(f"journalctl cannot be run: {error}", "install systemd") from error
    return {"clients": [{"pool": p, "client": c, **n} for (p, c), n in sorted(counts.items())]}


def count(line, counts):
    """Add a line of the log; other lines are none of a request."""
    found = LINE.search(line)
    if not found:
        return
    # "-": a right key that nobody named.
    # A key that nobody named is logged as "-".
    status, client = found["status"], "" if found["client"] in (None, "-") else found["client"]
    row = counts.setdefault((found["pool"], client), {"requests": 0, "refused": 0, "failed": 0})
    if status == "401":
        row["refused"] += 1
        return
    row["requests"] += 1
    row["failed"] += status == "-1" or status.startswith("5")
