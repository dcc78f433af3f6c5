"""HTTP client of an instance, over TCP or a unix socket, as its clients use it."""

import contextlib
import http.client
import ipaddress
import json
import socket
import threading
import time
from functools import partial
from pathlib import Path

from corral_host.server import listener
from corral_host.server.held_keys import loaded


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


# "CO": packets that the helper sends bypass the packet rules of a switch (redirect.py).
MARK = 0x434F


class MarkedConnection(http.client.HTTPConnection):
    """HTTP over TCP to a numeric address, in packets that carry the mark."""

    def connect(self):
        six = ipaddress.ip_address(self.host).version == 6
        self.sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET)
        # A process that may not set the mark may not lay packet rules either.
        with contextlib.suppress(PermissionError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
        self.sock.settimeout(self.timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.connect((self.host, self.port))


def connection(instance, timeout):
    end = instance["endpoint"]
    if end["socket"]:
        return UnixConnection(end["socket"], timeout)
    return MarkedConnection(local(end["address"]), end["port"], timeout=timeout)


def local(address):
    """Address at which a server is reached from its own host; it may listen on all addresses."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)


def url_at(address, port):
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def call(instance, method, path, body=None, key=None, timeout=120):
    """Send one request; returns the status and the body as text. Raises TimeoutError or OSError.

    Raises HostError, and sends no key, if another process than the instance's unit listens.
    """
    link = connection(instance, timeout)
    text = body and json.dumps(body)
    judge = judge_of(instance, key)
    return exchange(link, method, path, headers_with(key), text, seconds=timeout, judge=judge)


def headers_with(key):
    given = {"Authorization": f"Bearer {key}"} if key else {}
    return {"Content-Type": "application/json", **given}


class LateError(TimeoutError):
    """The answer was not complete in time, although bytes may have trickled in."""


def judge_of(instance, key):
    """The check of a connection before a request with a key; None for a request without one."""
    return key and partial(listener.refuse_stranger, instance)


def text_of(answer, _):
    return answer.read().decode(errors="replace")


def timed_lines(answer, began):
    """Each line of an answer, with the seconds between the request and its arrival."""
    return [(time.monotonic() - began, line.decode(errors="replace").rstrip()) for line in answer]


def exchange(link, method, path, headers, body=None, *, seconds, judge=None, read=text_of):
    """Send one request and close its connection; returns the status and the body as ``read`` does.

    ``judge``: gets the connected socket, raises HostError if nothing may be sent on it. ``read``:
    gets the answer and when the request was sent. Raises LateError after ``seconds``, else OSError;
    a TimeoutError comes from the connection's own limit.
    """
    late = threading.Event()
    try:
        if link.sock is None:
            link.connect()
        if judge:
            judge(link.sock)
        with deadline(link.sock, seconds, late):
            began = time.monotonic()
            link.request(method, path, body=body, headers=headers)
            answer = link.getresponse()
            found = answer.status, read(answer, began)
    except (http.client.HTTPException, OSError) as fault:
        if late.is_set():
            raise LateError(f"no whole answer within {seconds:g} s") from fault
        if isinstance(fault, socket.timeout):  # noqa: UP041 - two classes in Python 3.9
            raise TimeoutError(f"no answer for {link.timeout:g} s") from fault
        if isinstance(fault, OSError):
            raise
        raise OSError(f"{type(fault).__name__} from {path}") from fault
    finally:
        link.close()
    if late.is_set():
        raise LateError(f"no whole answer within {seconds:g} s")
    return found


@contextlib.contextmanager
def deadline(sock, seconds, late):
    """Cut a socket after so many seconds and set ``late``, so that a trickling one ends too."""

    def cut():
        late.set()
        # The other side may have closed it first.
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def first_key(instance):
    return keys_in(Path(instance["key_path"]).read_text())[0]


def loaded_key(instance):
    """The first key that the running server read; the file on disk may be newer."""
    return [*keys_in(loaded(instance) or ""), first_key(instance)][0]


def keys_in(text):
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def chat(instance, stream=False):
    messages = [{"role": "user", "content": "Say hello."}]
    return {
        "model": instance["alias"], "messages": messages, "max_tokens": 16, "stream": stream,
        "temperature": 0,
    }  # fmt: skip


def health(instance):
    try:
        return str(call(instance, "GET", "/health", timeout=2)[0])
    except OSError as error:
        return str(error)
