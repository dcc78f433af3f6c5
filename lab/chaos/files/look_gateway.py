"""Print the states of a gateway's servers as JSON, from HAProxy itself: `look_gateway.py`."""

from __future__ import annotations

import csv
import json
import socket

# Of the master process; @1 is its newest worker (HAProxy's management guide, 9.3).
SOCKET, QUESTION = "/run/corral-gateway/master.sock", b"@1 show stat\n"
CROWD = ("FRONTEND", "BACKEND")


def main() -> dict[str, str]:
    """Server -> its state, such as "UP" or "DRAIN"."""
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(SOCKET)
        link.sendall(QUESTION)
        link.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: link.recv(65536), b"")).decode()
    rows = csv.DictReader(answer.removeprefix("# ").splitlines())
    # Leave out HAProxy's rows for whole frontends and backends.
    return {row["svname"]: row["status"] for row in rows if row["svname"] not in CROWD}


if __name__ == "__main__":
    print(json.dumps(main()))
