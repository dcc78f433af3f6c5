"""Tokens/s of vLLM, by the times that it adds up in its metrics for all requests.

Times of arrival would be those of a client: where a machine is busy, 32 tokens of 0.1 s arrived in
one piece. So they serve only while others use the server, whose requests are in the sums as well.
"""

import json
import time

from corral_host.engines.vllm_server.metrics import total
from corral_host.system.commands import HostError

PREFILL, DECODE = "vllm:request_prefill_time_seconds", "vllm:request_decode_time_seconds"
# A request may be added to the sums after its answer is whole.
LOOKS, LOOK_SECONDS = 20, 0.1
TRIES = 3


def speeds(ask, timed, words, tokens, generated, limit):
    """Tokens/s of a prompt, and of the tokens after the first one.

    The prompt is sent as tokens, so it is exactly as long as planned. It begins with a random word,
    so no block of it is in the prefix cache.
    """
    body = {
        "prompt": prompt(ask, words, tokens), "max_tokens": generated, "temperature": 0,
        "ignore_eos": True, "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }  # fmt: skip
    for number in range(TRIES):
        # The same prompt again would be in the cache.
        body["prompt"] = [*body["prompt"][number:], *body["prompt"][:number]]
        before = clocks(ask)
        events = timed("POST /v1/completions", body, limit(generated, tokens))
        arrived = [(at, event["usage"]) for at, event in events if event["choices"]]
        refuse_other_lengths(arrived[-1][1] if arrived else None, tokens, generated)
        seconds = own_seconds(ask, before)
        if seconds:
            return {"prompt": tokens / seconds[0], "generation": (generated - 1) / seconds[1]}
    return by_arrival(arrived, tokens)


def clocks(ask):
    """Seconds and number of requests in the sums of prefill and decode."""
    text = ask("GET /metrics", None)
    names = (f"{name}_{part}" for part in ("sum", "count") for name in (PREFILL, DECODE))
    found = [total(text, name) for name in names]
    if None in found:
        raise HostError(f"/metrics has no {PREFILL} or no {DECODE}")
    return found[:2], found[2:]


def own_seconds(ask, before):
    """Prefill and decode seconds of the only request since ``before``; None if it is not alone."""
    for _ in range(LOOKS):
        now = clocks(ask)
        more = {after - earlier for after, earlier in zip(now[1], before[1])}
        if more == {1}:
            seconds = [after - earlier for after, earlier in zip(now[0], before[0])]
            return seconds if min(seconds) > 0 else None
        if max(more) > 1:
            return None
        time.sleep(LOOK_SECONDS)
    return None


def by_arrival(arrived, tokens):
    (first, early), (last, late) = arrived[0], arrived[-1]
    more = late["completion_tokens"] - early["completion_tokens"]
    if not (0 < first < last and more > 0):
        raise HostError("all tokens arrived in one piece, so their speed is unknown")
    return {"prompt": tokens / first, "generation": more / (last - first)}


def prompt(ask, words, tokens):
    """The words as exactly ``tokens`` tokens of the model."""
    body = {"prompt": " ".join(words), "add_special_tokens": False}
    found = json.loads(ask("POST /tokenize", body))["tokens"][:tokens]
    if len(found) < tokens:
        raise HostError(f"{len(words)} words are {len(found)} tokens, and {tokens} are needed")
    return found


def refuse_other_lengths(usage, tokens, generated):
    if usage is None:
        raise HostError("the server sent no token")
    seen = (usage["prompt_tokens"], usage["completion_tokens"])
    if seen != (tokens, generated):
        raise HostError(
            f"the server counts {seen[0]} and {seen[1]} tokens, sent and asked for were {tokens} "
            f"and {generated}"
        )
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
    if cached:
        raise HostError(f"{cached} of {tokens} tokens were cached, the rest was read")
