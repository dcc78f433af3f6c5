"""A steady load of streamed completions; every one that fails or is cut counts."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx2 as httpx
from openai import OpenAI, OpenAIError

from tests.lab.waiting import wait_for

AT_ONCE = 3
TOKENS = 32
# From the start of a request to the start of the client's next one, at least. Requests without a
# pause would take what processor time there is, so that all that they accompany would take longer.
EVERY_SECONDS = 0.2
_DATA = "data: "


@dataclass
class Streams:
    """Results of the requests."""

    ended: int = 0
    failures: list[str] = field(default_factory=list)

    def wait_for_more(self, count: int = 2 * AT_ONCE) -> None:
        """Wait until so many more requests have ended, in any way."""
        before = self.ended
        wait_for(lambda: self.ended >= before + count, f"{count} more requests end")


@contextmanager
def streams(client: OpenAI, model: str) -> Iterator[Streams]:
    """Request streamed completions steadily, some in parallel, until the block ends."""
    seen, done = Streams(), threading.Event()
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        asking = [pool.submit(_ask, client, model, seen, done) for _ in range(AT_ONCE)]
        try:
            yield seen
        finally:
            done.set()
            for one in asking:
                one.result()


def _ask(client: OpenAI, model: str, seen: Streams, done: threading.Event) -> None:
    while not done.is_set():
        began = time.monotonic()
        try:
            reason = _reason(client, model)
            if reason not in ("stop", "length"):
                seen.failures.append(f"ended with {reason}")
        except (OpenAIError, httpx.HTTPError, ValueError, LookupError) as error:
            seen.failures.append(f"{type(error).__name__}: {error} ({error.__cause__!r})")
        seen.ended += 1
        done.wait(max(0, began + EVERY_SECONDS - time.monotonic()))


def _reason(client: OpenAI, model: str) -> str | None:
    """Why a completion ended, as its last piece says; None for one that was cut."""
    with client.chat.completions.with_streaming_response.create(
        model=model,
        messages=[{"role": "user", "content": "Say hello."}],
        max_tokens=TOKENS,
        stream=True,
    ) as answer:
        lines = [line for line in answer.iter_lines() if line.startswith(_DATA)]
    events = [line.removeprefix(_DATA) for line in lines]
    if not events or events.pop() != "[DONE]":
        return None
    reasons = [choice["finish_reason"] for one in events for choice in _choices(one)]
    return reasons[-1] if reasons else None


def _choices(event: str) -> list[dict[str, str | None]]:
    found: list[dict[str, str | None]] = json.loads(event)["choices"]
    return found
