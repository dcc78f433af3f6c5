"""HTTP client for gate probes; every request has a deadline, so a server that hangs is detected."""

import json

from corral_host.server.http import LateError, connection, exchange, headers_with, judge_of
from corral_host.system.commands import HostError

# Longest silence of a stream, and longest wait for a request that tests a key.
SILENT_SECONDS = 60
ROUTE_SECONDS = 10


class NoAnswerError(HostError):
    """A server took a request and gave no whole answer in time."""


def limit_seconds(tokens, prompt_tokens=0):
    """Limit for so many tokens: twice what the slowest server in use needs."""
    return 20 + 2 * tokens + prompt_tokens / 20


def ask(instance, route, body=None, key=None, seconds=ROUTE_SECONDS, silent_seconds=None):
    """Status and whole body of an answer; ``route``: such as ``POST /completion``.

    Raises NoAnswerError after ``seconds`` in total or ``silent_seconds`` without a byte, HostError
    if another process than the instance's unit listens; OSError for other faults.
    """
    method, path = route.split()
    silent = min(seconds, silent_seconds or seconds)
    link, text = connection(instance, silent), body and json.dumps(body)
    try:
        judge = judge_of(instance, key)
        return exchange(link, method, path, headers_with(key), text, seconds=seconds, judge=judge)
    except TimeoutError as fault:
        is_silent = silent < seconds and not isinstance(fault, LateError)
        what = f"silent for {silent:g} s" if is_silent else f"no whole answer within {seconds:g} s"
        raise NoAnswerError(f"{path}: {what}") from fault
    except OSError as fault:
        kind = type(fault.__cause__ or fault).__name__
        raise OSError(f"{path}: {kind} before the answer was whole") from fault


def reply_of(message):
    """Reasoning and answer of a message, or of a delta of one, as one text."""
    return (message.get("reasoning_content") or "") + (message.get("content") or "")


def streamed(text):
    """The message deltas of a complete stream. Raises HostError for one that broke off."""
    events = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    if not events or events[-1] != "[DONE]":
        last = events[-1][:80] if events else "nothing"
        raise HostError(f"the stream ended after {len(events)} events, the last was {last}")
    found = [json.loads(event) for event in events[:-1]]
    errors = [one["error"] for one in found if "error" in one]
    if errors:
        raise HostError(f"the stream has an error: {str(errors[0])[:200]}")
    return [choice["delta"] for one in found for choice in one["choices"]]
