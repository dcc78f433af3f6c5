"""A rude HTTP client: sends raw bytes over a socket, and returns every status line of the answer.

No client library sends such requests, and none shows a second answer to one request.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

# A status line may follow the body of the last answer in the same line.
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] \d{3}[^\r\n]*")
_CHAT = "/v1/chat/completions"
# One black pixel.
_IMAGE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "YPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
# A hidden request: a second answer shows that it was parsed as a request of its own.
_HIDDEN = b"GET /v1/models HTTP/1.1\r\nHost: hidden\r\n\r\n"
_CHUNKED = b"Transfer-Encoding: chunked\r\n"
_NO_MORE_CHUNKS = b"0\r\n\r\n"

# Name -> lines of the head, and the body: parsers may disagree about where the request ends.
SMUGGLED: Mapping[str, tuple[bytes, bytes]] = {
    "two lengths": (b"Content-Length: 0\r\nContent-Length: %d\r\n" % len(_HIDDEN), _HIDDEN),
    "two lengths in a list": (b"Content-Length: 0, %d\r\n" % len(_HIDDEN), _HIDDEN),
    "a signed length": (b"Content-Length: +%d\r\n" % len(_HIDDEN), _HIDDEN),
    "a length and chunks": (b"Content-Length: 5\r\n" + _CHUNKED, _NO_MORE_CHUNKS + _HIDDEN),
    "chunks and a length": (
        _CHUNKED + b"Content-Length: 4\r\n",
        b"%x\r\n%b\r\n" % (len(_HIDDEN), _HIDDEN) + _NO_MORE_CHUNKS,
    ),
    "two codings": (
        _CHUNKED + b"Transfer-Encoding: identity\r\n", _NO_MORE_CHUNKS + _HIDDEN,
    ),
    "a coding with a vertical tab": (
        b"Transfer-Encoding: \x0bchunked\r\n", _NO_MORE_CHUNKS + _HIDDEN,
    ),
    "a chunk with an extension": (_CHUNKED, b'0;x="y"\r\n\r\n' + _HIDDEN),
    "a line feed in an extension": (
        _CHUNKED, b"2;\nxx\r\n%x\r\n0\r\n\r\n%b\r\n0\r\n\r\n" % (len(_HIDDEN) + 5, _HIDDEN),
    ),
    "a line feed after a chunk": (_CHUNKED, b"1\r\na\n0\r\n\r\n" + _HIDDEN),
    "chunks that are no last coding": (
        b"Transfer-Encoding: chunked, identity\r\n", _NO_MORE_CHUNKS + _HIDDEN,
    ),
    "a coding with a tab": (b"Transfer-Encoding:\tx\r\n", _NO_MORE_CHUNKS + _HIDDEN),
    "a space before the colon": (b"Content-Length : %d\r\n" % len(_HIDDEN), _HIDDEN),
    "a chunk size that is no number": (_CHUNKED, b"zz\r\n" + _HIDDEN),
    "a negative chunk size": (_CHUNKED, b"-1\r\n" + _HIDDEN),
    "a chunk without its end": (_CHUNKED, b"1\r\naXX" + _NO_MORE_CHUNKS + _HIDDEN),
    "a folded header": (b"Transfer-Encoding:\r\n chunked\r\n", _NO_MORE_CHUNKS + _HIDDEN),
    "a folded length": (b"Content-Length:\r\n %d\r\n" % len(_HIDDEN), _HIDDEN),
    "a line feed alone in a header": (b"X: y\nContent-Length: 0\r\n", _HIDDEN),
    "line feeds that end the head": (b"Content-Length: 0\n\n" + _HIDDEN, b""),
    "a return that ends no line": (b"X: y\rContent-Length: 0\r\n", _HIDDEN),
    "a NUL in a header": (b"X: a\x00b\r\nContent-Length: 0\r\n", _HIDDEN),
}  # fmt: skip

# First bytes of other protocols, and of other versions of HTTP.
NOT_HTTP: tuple[bytes, ...] = (
    b"GET /v1/models\r\n\r\n", b"GET /v1/models HTTP/9.9\r\nHost: rude\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"\x00" * 100,
    b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nGET /v1/models HTTP/1.1\r\nHost: rude\r\n\r\n",
)  # fmt: skip
METHODS = ("CONNECT", "DELETE", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE", "get", "BREW")


@dataclass(frozen=True)
class RudeClient:
    """Each request has a connection of its own, and the right key.

    + address, port: of the server or gateway; + key: sent as a bearer token
    + patience_seconds: how long it waits for an answer, and then for another one
    """

    address: str
    port: int
    key: str
    patience_seconds: float = 10

    def malformed_json(self) -> list[str]:
        """A body that ends in the middle."""
        return self.post(_CHAT, b'{"messages": [{"role": "user", "content": ')

    def image(self) -> list[str]:
        """An image, for a model that accepts only text."""
        part = {"type": "image_url", "image_url": {"url": _IMAGE}}
        asked = {"messages": [{"role": "user", "content": [part]}], "max_tokens": 1}
        return self.post(_CHAT, json.dumps(asked).encode())

    def huge_headers(self, size_bytes: int = 1 << 20) -> list[str]:
        """More headers than any server accepts."""
        line = b"X-Rude: " + b"x" * 1000 + b"\r\n"
        return self.send(self._head("GET", "/v1/models", line * (size_bytes // len(line))))

    def slow_body(self, seconds: float) -> list[str]:
        """A body of which one byte is sent each second, and never the last."""
        head = self._head("POST", _CHAT, b"Content-Length: 100000\r\n")
        with self._connected() as link:
            link.sendall(head)
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                try:
                    link.sendall(b"x")
                except OSError:
                    break
                time.sleep(1)
            return _status_lines(link, 0.1)

    def half_closed(self) -> list[str]:
        """A good request from a client that then closes its sending side."""
        asked = {"messages": [{"role": "user", "content": "Count."}], "max_tokens": 64}
        body = json.dumps(asked).encode()
        with self._connected() as link:
            link.sendall(self._head("POST", _CHAT, b"Content-Length: %d\r\n" % len(body)) + body)
            link.shutdown(socket.SHUT_WR)
            return _status_lines(link, self.patience_seconds)

    def half_a_request(self) -> list[str]:
        """A body shorter than its Content-Length."""
        with self._connected() as link:
            link.sendall(self._head("POST", _CHAT, b"Content-Length: 100\r\n") + b'{"messages"')
            link.shutdown(socket.SHUT_WR)
            return _status_lines(link, self.patience_seconds)

    def authorized_by(self, value: bytes) -> list[str]:
        """A request with this for its whole Authorization header, and no other key."""
        return self.send(
            b"GET /v1/models HTTP/1.1\r\nHost: rude\r\nConnection: close\r\n"
            b"Authorization: " + value + b"\r\n\r\n"
        )

    def everything(self) -> dict[str, list[str]]:
        """Send every request that no client should send, some in parallel; returns the answers."""
        asked: dict[str, Callable[[], list[str]]] = {
            "malformed JSON": self.malformed_json,
            "an image": self.image,
            "huge headers": self.huge_headers,
            "a slow body": partial(self.slow_body, 5),
            "half closed": self.half_closed,
            "half a request": self.half_a_request,
            **{name: partial(self.smuggle, name) for name in SMUGGLED},
            **{str(value): partial(self.authorized_by, value) for value in odd_keys(self.key)},
            **{path: partial(self.get, path) for path in odd_paths("/slots")},
            **{method: partial(self.get, "/v1/models", b"", method) for method in METHODS},
            **{str(raw): partial(self.send, raw) for raw in NOT_HTTP},
        }
        with ThreadPoolExecutor(max_workers=4) as pool:
            waiting = {name: pool.submit(ask) for name, ask in asked.items()}
            return {name: one.result() for name, one in waiting.items()}

    def smuggle(self, name: str) -> list[str]:
        """A request with another one hidden in it: one of SMUGGLED."""
        lines, body = SMUGGLED[name]
        return self.send(self._head("POST", _CHAT, lines) + body)

    def get(self, path: str, headers: bytes = b"", method: str = "GET") -> list[str]:
        """A path exactly as it is written, as no library would send it."""
        return self.send(self._head(method, path, headers + b"Connection: close\r\n"))

    def post(self, path: str, body: bytes, headers: bytes = b"") -> list[str]:
        """Any body, as JSON."""
        length = b"Connection: close\r\nContent-Length: %d\r\n" % len(body)
        kind = b"Content-Type: application/json\r\n"
        return self.send(self._head("POST", path, headers + kind + length) + body)

    def send(self, raw: bytes) -> list[str]:
        """Send only these bytes; returns the status line of each answer."""
        with self._connected() as link:
            # A server that refuses early closes early, but its answer may have arrived.
            with suppress(OSError):
                link.sendall(raw)
            return _status_lines(link, self.patience_seconds)

    def _connected(self) -> socket.socket:
        return socket.create_connection((self.address, self.port), timeout=self.patience_seconds)

    def _head(self, method: str, path: str, lines: bytes) -> bytes:
        first = f"{method} {path} HTTP/1.1\r\nHost: {self.address}\r\n"
        return first.encode() + f"Authorization: Bearer {self.key}\r\n".encode() + lines + b"\r\n"


def odd_keys(key: str) -> list[bytes]:
    """Values of an Authorization header that are similar to the right one."""
    good = f"Bearer {key}".encode()
    return [
        b"", b"Bearer", b"Bearer ", key.encode(), good[:-1], good + b"x", good + b" x", good + b",",
        good.replace(b" ", b"  "), good.replace(b" ", b"\t"), good.replace(b"Bearer", b"Basic"),
        good + b"\xff", b"Bearer \x00" + key.encode(), good + b", " + good,
        b"Bearer *", b"Bearer .*", b"Bearer %s", b"Bearer " + b"x" * 4000,
    ]  # fmt: skip


def odd_paths(path: str) -> list[str]:
    """Spellings of a path that some servers treat as the same."""
    first, _, last = path.rpartition("/")
    return [
        f"/{path}", f"{first}//{last}", f"{path}/", f"{path}/.", f"/.{path}", f"/x/..{path}",
        f"/v1/..{path}", f"/v1/%2e%2e{path}", f"/v1/models/../..{path}", f"/v1/models;/..{path}",
        path.upper(), f"{first}/%{ord(last[0]):02x}{last[1:]}", f"{first}%2f{last}",
        f"{first}/%2e/{last}", f"{path}%00", f"{path};x=1", f"{path}%3f", f"{first}\\{last}",
    ]  # fmt: skip


def _status_lines(link: socket.socket, patience_seconds: float) -> list[str]:
    """Status lines in all that arrives until the other side closes, or is silent for so long."""
    link.settimeout(patience_seconds)
    found = b""
    with suppress(OSError):
        while part := link.recv(65536):
            found += part
    return [line.decode() for line in _STATUS_LINE.findall(found)]
