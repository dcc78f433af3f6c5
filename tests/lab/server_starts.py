"""Start servers on a lab host with given command lines, one after another, and note what they do.

A program on the host does this, so that a start needs no connection of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from tests.lab.waiting import PATIENCE_SECONDS
from tests.lab.workspace import Workspace

_PROGRAM = '''
import http.client, json, socket, subprocess, sys, tempfile, time

def answers(where):
    """Whether /health says 200: arguments are read, and the model with them."""
    connection = http.client.HTTPConnection("127.0.0.1", where.get("port"), timeout=2)
    if where.get("socket"):
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(2)
    try:
        if where.get("socket"):
            connection.sock.connect(where["socket"])
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()

def start(case):
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(case["argv"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline, ready = time.monotonic() + case["seconds"], False
        while not ready and server.poll() is None and time.monotonic() < deadline:
            ready = answers(case)
            time.sleep(0.05)
        code = server.poll()
        server.kill()
        server.wait()
        log.seek(0)
        said = log.read().decode(errors="replace")
    # What is wrong stands before a whole page of help, or at the end.
    return {"ready": ready, "code": code, "said": said[:1000] + said[1000:][-3000:]}

cases = json.loads(sys.stdin.read())
print(json.dumps({name: start(case) for name, case in cases.items()}))
'''


@dataclass(frozen=True)
class Case:
    """A command line, and where its server must answer: a port, or a socket's path."""

    argv: tuple[str, ...]
    port: int | None = None
    socket: str | None = None


@dataclass(frozen=True)
class Started:
    """What a server did: whether it got ready, its exit code if it ended first, its output."""

    ready: bool
    code: int | None
    said: str


def start_each(lab: Workspace, host: str, cases: Mapping[str, Case]) -> dict[str, Started]:
    """Name -> what the server did; each is killed before the next one starts."""
    document = json.dumps(
        {
            name: {"argv": case.argv, "port": case.port, "socket": case.socket,
                   "seconds": PATIENCE_SECONDS}
            for name, case in cases.items()
        }
    )  # fmt: skip
    script = f"program=$(cat <<'END'\n{_PROGRAM}\nEND\n)\n"
    script += f"python3 -c \"$program\" <<'END'\n{document}\nEND\n"
    told = json.loads(lab.on(host, script))
    return {name: Started(**result) for name, result in told.items()}
