"""HTTP client for gate probes; every request has a deadline, so a server that hangs is detected."""

import json

from corral_host.server.http import (
    LateError,
    connection,
    exchange,
    headers_with,
    judge_of,
    text_of,
    timed_lines,
)
from corral_host.system.commands import HostError

# Longest silence of a stream, and longest wait for a request that tests a key.
SILENT_SECONDS = 60
ROUTE_SECONDS = 10


class NoAnswerError(HostError):
    """A server took a request and gave no whole answer in time."""


def limit_seconds(tokens, prompt_tokens=0):
    """Limit for so many tokens: twice what the slowest server in use needs."""
    return 20 + 2 * tokens + prompt_tokens / 20


def ask(
    instance, route, body=None, key=None, seconds=ROUTE_SECONDS, silent_seconds=None, read=text_of
):
    """Status and whole body of an answer; ``route``: such as ``POST /completion``.

    Raises NoAnswerError after ``seconds`` in total or ``silent_seconds`` without a byte, HostError
    if another process than the instance's unit listens; OSError for other faults.
    """
    method, path = route.split()
    silent = min(seconds, silent_seconds or seconds)
    link, text = connection(instance, silent), body and json.dumps(body)
    try:
        judge = judge_of(instance, key)
        return exchange(
            link, method, path, headers_with(key), text, seconds=seconds, judge=judge, read=read
        )
    except TimeoutError as fault:
        is_silent = silent < seconds and not isinstance(fault, LateError)
        what = f"silent for {silent:g} s" if is_silent else f"no whole answer within {seconds:g} s"
        raise NoAnswerError(f"{path}: {what}") from fault
    except OSError as fault:
        kind = type(fault.__cause__ or fault).__name__
        raise OSError(f"{path}: {kind} before the answer was whole") from fault


def timed(instance, route, body, key, seconds):
    """Events of a stream, each with its seconds since the request; raises as ask, and HostError."""
    code, lines = ask(instance, route, body, key, seconds, SILENT_SECONDS, read=timed_lines)
    refuse_other(code, "\n".join(line for _, line in lines))
    found = [(at, line[6:]) for at, line in lines if line.startswith("data: ")]
    documents = whole([event for _, event in found])
    return [(at, event) for (at, _), event in zip(found, documents)]


def refuse_other(code, text):
    """Raises HostError unless the status is 200."""
    if code != 200:
        raise HostError(f"answered {code}: {text.strip()[:200]}")


def reasoning_of(message):
    """Reasoning of a message, or of a delta of one; vLLM calls it reasoning since 0.12."""
    return message.get("reasoning_content") or message.get("reasoning") or ""


def reply_of(message):
    """Reasoning and answer of a message, or of a delta of one, as one text."""
    return reasoning_of(message) + (message.get("content") or "")


def streamed(text):
    """The message deltas of a complete stream. Raises HostError for one that broke off."""
    lines = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    return [choice["delta"] for one in whole(lines) for choice in one["choices"]]


def whole(events):
    """The documents of a complete stream's events. Raises HostError for one that broke off."""
    if not events or events[-1] != "[DONE]":
        last = events[-1][:80] if events else "nothing"
        raise HostError(f"the stream ended after {len(events)} events, the last was {last}")
    found = [json.loads(event) for event in events[:-1]]
    errors = [one["error"] for one in found if "error" in one]
    if errors:
        raise HostError(f"the stream has an error: {str(errors[0])[:200]}")
    return found
