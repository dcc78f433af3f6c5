"""Ask a server on trial: every request has a limit, so that one that hangs is found out."""

import json

from corral_host.server.http import LateError, connection, exchange, headers_with, judge_of
from corral_host.system.commands import HostError

# A stream may be silent for so long, and nothing that a key decides takes longer.
SILENT_SECONDS = 60
ROUTE_SECONDS = 10


class NoAnswerError(HostError):
    """A server took a request and gave no whole answer in time."""


def limit_seconds(tokens, prompt_tokens=0):
    """How long so many tokens may take: the slowest that anybody serves takes half of it."""
    return 20 + 2 * tokens + prompt_tokens / 20


def ask(instance, route, body=None, key=None, seconds=ROUTE_SECONDS, silent_seconds=None):
    """Status and whole body of an answer; ``route``: as in ``POST /completion``.

    Raises NoAnswerError after ``seconds`` in all or ``silent_seconds`` without a byte, HostError
    when it is not the instance's unit that listens; else OSError.
    """
    method, path = route.split()
    silent = min(seconds, silent_seconds or seconds)
    link, text = connection(instance, silent), body and json.dumps(body)
    try:
        judge = judge_of(instance, key)
        return exchange(link, method, path, headers_with(key), text, seconds=seconds, judge=judge)
    except TimeoutError as fault:
        is_silent = silent < seconds and not isinstance(fault, LateError)
        told = f"silent for {silent:g} s" if is_silent else f"no whole answer within {seconds:g} s"
        raise NoAnswerError(f"{path}: {told}") from fault
    except OSError as fault:
        kind = type(fault.__cause__ or fault).__name__
        raise OSError(f"{path}: {kind} before the answer was whole") from fault


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
