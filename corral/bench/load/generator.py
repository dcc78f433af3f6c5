"""Send the requests of one measurement: when they arrive, how many at a time, until when."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import NamedTuple

from corral.bench.load.completions import Target, complete, connected, prove
from corral.bench.load.figures import Exchange, LoadRun, figures
from corral.engines.load import AT_ONCE, LoadCase

_PROGRESS_SECONDS = 10
_FIRST_TOKENS = 16

PrintLine = Callable[[str], None]
Send = Callable[[Sequence[int]], Awaitable[Exchange]]


class Measured(NamedTuple):
    """One measurement; ``client_load``: share of a processor that the client used itself."""

    run: LoadRun
    client_load: float


def prompts(case: LoadCase, tokens: Sequence[int], chance: random.Random) -> list[list[int]]:
    """Prompts of exactly the length, of random tokens, so that no cache has a beginning of one.

    + tokens: tokens of text in the model's vocabulary
    """
    return [chance.choices(tokens, k=case.input_tokens) for _ in range(case.num_prompts)]


def delays(case: LoadCase, chance: random.Random) -> list[float]:
    """Seconds from the start to each request: a Poisson process of exactly the average rate.

    As `vllm bench serve` does it: the last request comes after number / rate seconds.
    """
    if case.request_rate == AT_ONCE:
        return [0.0] * case.num_prompts
    gaps = [chance.expovariate(1) for _ in range(case.num_prompts)]
    whole = case.num_prompts / case.request_rate
    return [at * whole / sum(gaps) for at in itertools.accumulate(gaps)]


def measure(
    target: Target,
    case: LoadCase,
    tokens: Sequence[int],
    *,
    limit_seconds: float,
    print_line: PrintLine,
) -> Measured:
    """Run one measurement; what is not answered within the limit has failed."""
    return asyncio.run(_measure(target, case, tokens, limit_seconds, print_line))


def first_answer(target: Target, tokens: Sequence[int], *, where: str, next_step: str) -> float:
    """Prove that the server answers; returns a round trip in seconds. Raises CorralError."""
    first = tokens[:_FIRST_TOKENS]
    return asyncio.run(prove(target, first, where=where, next_step=next_step))


async def _measure(
    target: Target,
    case: LoadCase,
    tokens: Sequence[int],
    limit_seconds: float,
    print_line: PrintLine,
) -> Measured:
    # Seeded by the system, so that no test repeats the prompts of another; they are no secret.
    chance = random.Random()  # noqa: S311
    async with connected(target, case.concurrency) as client:

        async def send(prompt: Sequence[int]) -> Exchange:
            return await complete(client, target, prompt, case.output_tokens)

        # Made before the clock starts.
        texts, at = prompts(case, tokens, chance), delays(case, chance)
        cpu, began = time.process_time(), time.perf_counter()
        exchanges = await send_all(case, texts, at, send, limit_seconds, print_line)
        duration = time.perf_counter() - began
        load = (time.process_time() - cpu) / duration
    return Measured(figures(case, exchanges, duration), load)


async def send_all(
    case: LoadCase,
    texts: Sequence[Sequence[int]],
    at: Sequence[float],
    send: Send,
    limit_seconds: float,
    print_line: PrintLine,
) -> list[Exchange]:
    """Exchanges of all requests, in their order."""
    late = f"not answered within {limit_seconds:g} s"
    found = [Exchange(error=late) for _ in texts]
    slots, began = asyncio.Semaphore(case.concurrency), time.perf_counter()
    ended: set[int] = set()

    async def one(number: int) -> None:
        await asyncio.sleep(at[number] - (time.perf_counter() - began))
        async with slots:
            found[number] = await send(texts[number])
        ended.add(number)

    tasks = [asyncio.create_task(one(number)) for number in range(len(texts))]
    progress = asyncio.create_task(_report(ended, len(texts), print_line))
    try:
        await asyncio.wait(tasks, timeout=limit_seconds)
    finally:
        for task in (*tasks, progress):
            task.cancel()
        # Closes the connections of those in flight, which ends them at the server.
        results = await asyncio.gather(*tasks, progress, return_exceptions=True)
    for fault in _faults(results):
        raise fault
    return found


def _faults(results: Sequence[object]) -> Iterator[BaseException]:
    """What is no failed request but a mistake of ours."""
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            yield result


async def _report(ended: set[int], number: int, print_line: PrintLine) -> None:
    while True:
        await asyncio.sleep(_PROGRESS_SECONDS)
        print_line(f"{len(ended)} of {number} requests have ended")
