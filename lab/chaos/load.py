"""A steady load of streamed chat completions by the `openai` client, one JSON line a request.

Run: `python -m lab.chaos.load --url URL --key-file FILE --model NAME --out FILE`, until SIGTERM.

Requests start at a fixed rate, whatever happens to earlier ones, so that all requests during an
outage count. The client's retries are off. Connections are kept alive, as by default;
`Reply.reused` says whether a request used such a connection.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import ssl
import sys
import time
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import httpx2
import openai
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from corral.store.api_keys import keys_in
from lab.chaos.tally import Outcome, Reply

TIMEOUT_SECONDS = 30.0
_LOOK_SECONDS = 1.0
_PROMPT = "Say hello to number {}."

# Connections that a request opened, noted by a hook of the HTTP client.
_opened: ContextVar[list[str]] = ContextVar("_opened")


class Load:
    """Clients that send requests in turn; each has its own connections."""

    def __init__(self, clients: Sequence[AsyncOpenAI], *, model: str, tokens: int) -> None:
        self._clients, self._model, self._tokens = clients, model, tokens

    async def run(self, per_second: float, stop: asyncio.Event, out: TextIO) -> None:
        """Send requests until ``stop`` is set, then wait for those in flight."""
        began, number = time.monotonic(), 0
        async with asyncio.TaskGroup() as asking:
            while not stop.is_set():
                asking.create_task(self._ask(number, out))
                number += 1
                pause = began + number / per_second - time.monotonic()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), max(0.0, pause))

    async def _ask(self, number: int, out: TextIO) -> None:
        client = self._clients[number % len(self._clients)]
        prompt = _PROMPT.format(number)
        reply = await ask(client, model=self._model, prompt=prompt, tokens=self._tokens)
        out.write(json.dumps(asdict(reply)) + "\n")
        out.flush()


async def ask(client: AsyncOpenAI, *, model: str, prompt: str, tokens: int) -> Reply:
    """Send one streamed completion; returns its result, and never raises a server's fault."""
    _opened.set([])
    began = time.monotonic()
    pieces: list[float] = []
    outcome, detail = await _judged(client, pieces, model=model, prompt=prompt, tokens=tokens)
    return Reply(
        began_seconds=began,
        first_token_seconds=pieces[0] if pieces else None,
        ended_seconds=time.monotonic(),
        pieces=len(pieces),
        outcome=outcome,
        detail=detail,
        reused=not _opened.get(),
    )


async def _judged(
    client: AsyncOpenAI, pieces: list[float], *, model: str, prompt: str, tokens: int
) -> tuple[Outcome, str]:
    """Send a request, note the time of each piece, and return the outcome with a detail."""
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            finished = await _stream(client, pieces, model=model, prompt=prompt, tokens=tokens)
    except (TimeoutError, openai.APITimeoutError, httpx2.TimeoutException):
        return Outcome.TIMEOUT, f"{len(pieces)} pieces came"
    except openai.APIStatusError as error:
        return Outcome.STATUS, str(error.status_code)
    except (openai.APIConnectionError, httpx2.TransportError) as error:
        return _of_connection(error, len(pieces))
    except (openai.APIError, ValueError) as error:
        return Outcome.ERROR, f"{type(error).__name__}: {error}"
    if not finished or not pieces:
        # The client's loop ends without an error if a stream just stops.
        return Outcome.CUT, f"ended after {len(pieces)} pieces without a last one"
    return Outcome.GOOD, ""


def _of_connection(error: Exception, pieces: int) -> tuple[Outcome, str]:
    reason = error.__cause__ if isinstance(error, openai.APIConnectionError) else error
    text = f"{type(reason).__name__}: {reason}"
    if isinstance(reason, httpx2.ConnectError):
        return Outcome.REFUSED, text
    return Outcome.CUT, f"{text} after {pieces} pieces"


async def _stream(
    client: AsyncOpenAI, pieces: list[float], *, model: str, prompt: str, tokens: int
) -> bool:
    """Whether the reply was complete; notes the time of each piece that has text."""
    finished = False
    stream = await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": prompt}],
        max_tokens=tokens,
        temperature=0,
        stream=True,
    )
    async for chunk in stream:
        for choice in chunk.choices:
            finished = finished or choice.finish_reason is not None
            if choice.delta.content:
                pieces.append(time.monotonic())
    return finished


def client(url: str, key: str, trusted: Path | None = None) -> AsyncOpenAI:
    """A client without retries, so that every failure counts.

    + url: without ``/v1``; + trusted: certificates, beside those of the system
    """
    verify = ssl.create_default_context(cafile=trusted)
    http = DefaultAsyncHttpxClient(event_hooks={"request": [_trace]}, verify=verify)
    return AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, http_client=http)


async def _trace(request: httpx2.Request) -> None:
    request.extensions["trace"] = _note_connection


async def _note_connection(event: str, info: dict[str, Any]) -> None:  # noqa: ARG001 - httpcore's
    if event == "connection.connect_tcp.started":
        _opened.get().append(event)


async def run(options: argparse.Namespace) -> None:
    """Send requests until SIGTERM or SIGINT, or until the parent process ends."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    key = keys_in(options.key_file.read_text())[0]
    load = Load(
        [client(options.url, key, options.trusted) for _ in range(options.clients)],
        model=options.model,
        tokens=options.tokens,
    )
    watching = asyncio.create_task(_stop_alone(stop))
    with options.out.open("w") as out:
        await load.run(options.per_second, stop, out)
    await watching


async def _stop_alone(stop: asyncio.Event) -> None:
    """Set ``stop`` when the parent is gone: a killed hard day cannot end its load."""
    parent = os.getppid()
    while not stop.is_set():
        if os.getppid() != parent:
            stop.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _LOOK_SECONDS)


def main(arguments: Sequence[str]) -> None:
    """Run the command line. The key comes from a file, so it is in no process list."""
    parser = argparse.ArgumentParser(prog="python -m lab.chaos.load", description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--key-file", required=True, type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--trusted", type=Path)
    parser.add_argument("--per-second", type=float, default=5.0)
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=16)
    asyncio.run(run(parser.parse_args(arguments)))


if __name__ == "__main__":
    main(sys.argv[1:])
