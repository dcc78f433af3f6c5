"""A steady load of streamed completions; every one that fails or is cut counts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from openai import OpenAI, OpenAIError

from tests.lab.waiting import wait_for

AT_ONCE = 3
TOKENS = 32


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
    """Request streamed completions without a pause, some in parallel, until the block ends."""
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
        try:
            reason = _reason(client, model)
            if reason not in ("stop", "length"):
                seen.failures.append(f"ended with {reason}")
        except OpenAIError as error:
            seen.failures.append(f"{type(error).__name__}: {error}")
        seen.ended += 1


def _reason(client: OpenAI, model: str) -> str | None:
    """Why a completion ended, as its last piece says; None for one that was cut."""
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "Say hello."}],
        max_tokens=TOKENS,
        stream=True,
    )
    reasons = [piece.choices[0].finish_reason for piece in stream if piece.choices]
    return reasons[-1] if reasons else None
