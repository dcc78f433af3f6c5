"""A simple index (PEP 503) of a folder of wheels, for hosts of the lab and for tests."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from corral_shared.requirements import normalized

_CHUNK_BYTES = 8 * 1024**2


def sha256_of(path: Path) -> str:
    """The digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_CHUNK_BYTES):
            digest.update(block)
    return digest.hexdigest()


class _Handler(SimpleHTTPRequestHandler):
    """``/simple/NAME/`` lists the wheels of NAME, with the digests that they had at the start."""

    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        server: Any = self.server
        server.asked.append(self.path)
        if server.holds and self.path.endswith(server.holds):
            server.held.set()
            server.released.wait(60)
        if server.refuses:
            self.send_error(server.refuses)
        elif self.path.startswith("/simple/"):
            self.listing(self.path.split("/")[2])
        else:
            super().do_GET()

    def listing(self, name: str) -> None:
        """The page of one distribution."""
        server: Any = self.server
        own = [f for f in server.digests if normalized(f.split("-")[0]) == name]
        if not own:
            self.send_error(404)
            return
        links = [f'<a href="/{one}#sha256={server.digests[one]}">{one}</a>' for one in own]
        data = f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Quiet."""


class Index(ThreadingHTTPServer):
    """The index.

    + refuses: a status for every answer; + asked: paths, in order
    + held: a file that is held back is asked for
    """

    daemon_threads = True

    def __init__(self, folder: Path, bind: str) -> None:
        self.folder = folder
        self.refuses = 0
        self.asked: list[str] = []
        self.holds = ""
        self.held, self.released = threading.Event(), threading.Event()
        self.digests = {path.name: sha256_of(path) for path in sorted(folder.glob("*.whl"))}
        self.bind = bind
        super().__init__((bind, 0), lambda *a, **k: _Handler(*a, directory=str(folder), **k))

    def hold(self, name: str) -> None:
        """Do not answer requests for a file, until ``release``."""
        self.held.clear()
        self.released.clear()
        self.holds = name

    def release(self) -> None:
        """Answer what is held, and all that follows."""
        self.holds = ""
        self.released.set()

    @property
    def url(self) -> str:
        """What an `index` of the catalog names."""
        return f"http://{self.bind}:{self.server_port}/simple"


@contextmanager
def serving(folder: Path, bind: str = "127.0.0.1") -> Iterator[Index]:
    """Serve the wheels of a folder until the block ends."""
    with Index(folder, bind) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()
