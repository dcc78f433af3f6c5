"""Golden prompts: requests at temperature 0 whose replies are known; other replies must be text."""

import re
import unicodedata

from corral_host import engines
from corral_host.checks.server_probes import CHAT
from corral_host.instance.gate_rows import gate_plan, row
from corral_host.server.http import first_key
from corral_host.server.probe_client import (
    SILENT_SECONDS,
    ask,
    limit_seconds,
    reasoning_of,
    refuse_other,
    streamed,
)

SHOWN_CHARACTERS = 200
# Longest group of characters whose repetition is searched, and how often it must be repeated.
GROUP_CHARACTERS = 24
TIMES = 4
# A shorter repetition may be a horizontal rule or a form.
REPEATED_CHARACTERS = 16
# In English and Chinese prose no character has a share of a fifth; a broken model repeats symbols.
SAME_SHARE = 0.5
SAME_CHARACTERS = 8
SAME_WORDS = 12


def golden(instance):
    prompts = gate_plan(instance)["golden"]
    limit = f"{len(prompts)} of {len(prompts)} replies"
    for number, prompt in enumerate(prompts):
        content, reply = asked(instance, prompt)
        problem = wrong(prompt, content, reply)
        if problem:
            said = f"{prompt['prompt'][:60]!r} was answered {reply[:SHOWN_CHARACTERS]!r}"
            return row("golden", False, f"{number} of {len(prompts)}", limit, f"{problem}: {said}")
    return row("golden", True, f"{len(prompts)} of {len(prompts)}", limit)


def asked(instance, prompt):
    """The answer, and the whole reply with the reasoning before it.

    The reply is streamed: a slow model may take long, but one that is silent for a minute is stuck.
    """
    body = {
        "model": instance["alias"], "messages": [{"role": "user", "content": content_of(prompt)}],
        "max_tokens": prompt["max_tokens"], "temperature": 0, "stream": True,
        **engines.of(instance).same_reply,
    }  # fmt: skip
    seconds = limit_seconds(prompt["max_tokens"])
    code, text = ask(instance, CHAT, body, first_key(instance), seconds, SILENT_SECONDS)
    refuse_other(code, text)
    parts = streamed(text)
    content = "".join(part.get("content") or "" for part in parts)
    return content, "".join(map(reasoning_of, parts)) + content


def content_of(prompt):
    """The text, or the image and the text; plans of earlier versions have no images."""
    if not prompt.get("image"):
        return prompt["prompt"]
    image = {"type": "image_url", "image_url": {"url": prompt["image"]}}
    return [image, {"type": "text", "text": prompt["prompt"]}]


def wrong(prompt, content, reply):
    """What is wrong with a reply, or ""."""
    if prompt["exact"] is not None and content != prompt["exact"]:
        return f"not exactly {prompt['exact'][:SHOWN_CHARACTERS]!r}"
    for pattern in prompt["require"]:
        if not re.search(pattern, reply):
            return f"nothing like {pattern!r} in it"
    for pattern in prompt["forbid"]:
        if re.search(pattern, reply):
            return f"{pattern!r} is in it"
    return gibberish(reply) if prompt["exact"] is None else ""


def gibberish(reply):
    """Why a reply is not text of any language, or "".

    Finds empty replies, characters that no text has, and replies that mostly repeat one character,
    word or short group. Random real words pass; ``require`` and ``forbid`` are for those.
    """
    text = " ".join(reply.split())
    if not text:
        return "nothing was said"
    broken = [c for c in reply if c == "\ufffd" or is_control(c)]
    if broken:
        return f"broken characters ({len(broken)}, the first {broken[0]!r})"
    if repeats_one(text.replace(" ", ""), SAME_CHARACTERS):
        return "one character is most of it"
    if repeats_one(text.split(" "), SAME_WORDS):
        return "one word is most of it"
    return "one group of characters is most of it" if repeats_a_group(text) else ""


def is_control(character):
    return unicodedata.category(character) == "Cc" and character not in "\n\r\t"


def repeats_one(items, least):
    return len(items) >= least and any(
        items.count(one) > SAME_SHARE * len(items) for one in set(items)
    )


def repeats_a_group(text):
    return any(
        stretch > max(SAME_SHARE * len(text), REPEATED_CHARACTERS) and stretch >= TIMES * group
        for group in range(1, GROUP_CHARACTERS + 1)
        for stretch in [longest_repetition(text, group)]
    )


def longest_repetition(text, group):
    """Length of the longest part of a text that repeats with a period of ``group`` characters."""
    longest = run = 0
    for one, before in zip(text[group:], text):
        run = run + 1 if one == before else 0
        longest = max(longest, run)
    return longest + group if longest else 0
