"""Ask a server on trial: every request has a limit, so that one that hangs is found out."""

import contextlib
import http.client
import json
import socket
import threading

from corral_host.server import connection
from corral_host.tools import HostError

# A stream may be silent for so long, and nothing that a key decides takes longer.
SILENT_SECONDS = 60
ROUTE_SECONDS = 10


def limit_seconds(tokens, prompt_tokens=0):
    """How long so many tokens may take: the slowest that anybody serves takes half of it."""
    return 20 + 2 * tokens + prompt_tokens / 20


def ask(instance, route, body=None, key=None, seconds=ROUTE_SECONDS, silent_seconds=None):
    """Status and whole body of an answer; ``route``: as in ``POST /completion``.

    Raises HostError after ``seconds`` in all or ``silent_seconds`` without a byte, else OSError.
    """
    method, path = route.split()
    silent = min(seconds, silent_seconds or seconds)
    link, late = connection(instance, silent), threading.Event()
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    try:
        if link.sock is None:
            link.connect()
        with deadline(link.sock, seconds, late):
            link.request(method, path, body=json.dumps(body) if body else None, headers=headers)
            answer = link.getresponse()
            found = answer.status, answer.read().decode(errors="replace")
    except socket.timeout as fault:  # noqa: UP041 - Python 3.9 tells them apart
        if silent < seconds:
            raise HostError(f"{path}: silent for {silent:g} s") from fault
        late.set()
    except (http.client.HTTPException, OSError) as fault:
        if not late.is_set():
            raise OSError(f"{path}: {type(fault).__name__} before the answer was whole") from fault
    finally:
        link.close()
    if late.is_set():
        raise HostError(f"{path}: no whole answer within {seconds:g} s")
    return found


@contextlib.contextmanager
def deadline(sock, seconds, late):
    """Cut a socket after so many seconds and say so in ``late``: one that trickles ends too."""

    def cut():
        late.set()
        # The other side may have been quicker.
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def reply_of(message):
    """Thoughts and answer of a message or of a part of one, as one text."""
    return (message.get("reasoning_content") or "") + (message.get("content") or "")


def streamed(text):
    """The parts of messages of a whole stream. Raises HostError for one that broke off."""
    events = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    if not events or events[-1] != "[DONE]":
        last = events[-1][:80] if events else "nothing"
        raise HostError(f"the stream ended after {len(events)} events, the last was {last}")
    found = [json.loads(event) for event in events[:-1]]
    errors = [one["error"] for one in found if "error" in one]
    if errors:
        raise HostError(f"the stream told an error: {str(errors[0])[:200]}")
    return [choice["delta"] for one in found for choice in one["choices"]]
