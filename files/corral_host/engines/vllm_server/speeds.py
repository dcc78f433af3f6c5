"""Tokens/s by the times at which tokens arrive, as vLLM reports none of its own."""

import json

from corral_host.system.commands import HostError


def speeds(ask, timed, words, tokens, generated, limit):
    """Tokens/s of a prompt, until the first token, and of the tokens after that one.

    The prompt is sent as tokens, so it is exactly as long as planned. It begins with a random word,
    so no block of it is in the prefix cache.
    """
    body = {
        "prompt": prompt(ask, words, tokens), "max_tokens": generated, "temperature": 0,
        "ignore_eos": True, "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }  # fmt: skip
    events = timed("POST /v1/completions", body, limit(generated, tokens))
    arrived = [(at, event["usage"]) for at, event in events if event["choices"]]
    refuse_other_lengths(arrived[-1][1] if arrived else None, tokens, generated)
    (first, early), (last, late) = arrived[0], arrived[-1]
    more = late["completion_tokens"] - early["completion_tokens"]
    if not (0 < first < last and more > 0):
        raise HostError(f"{generated} tokens arrived in one piece, so their speed is unknown")
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
