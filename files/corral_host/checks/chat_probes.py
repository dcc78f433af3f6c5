"""Probes of what a server's parsers make of a reply: a tool call, and reasoning.

Both ask at temperature 0 for a bounded number of tokens, so a server gives the same reply again.
What each engine adds to the request is in its room (``tool_call_fields``, ``reasoning_fields``).
"""

import json
import time

from corral_host import engines
from corral_host.checks.server_probes import CHAT
from corral_host.instance.gate_rows import row
from corral_host.server.http import first_key
from corral_host.server.probe_client import ask, limit_seconds, reasoning_of, refuse_other

TOKENS = 256
CITIES = ("Paris", "Rome")
TOOL = {
    "name": "get_weather",
    "description": "The weather of a city",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "enum": list(CITIES)}, "metric": {"type": "boolean"},
        },
        "required": ["city", "metric"],
        "additionalProperties": False,
    },
}  # fmt: skip
OPENING, CLOSING = "<think>", "</think>"
SHOWN_CHARACTERS = 200


def tool_call(instance, seconds=None):
    """A reply that must be a call is one: the tool's name, and arguments that match its schema."""
    began, seconds = time.monotonic(), seconds or limit_seconds(TOKENS)
    body = {
        # No reasoning first, which could use up the tokens.
        "chat_template_kwargs": {"enable_thinking": False},
        "tools": [{"type": "function", "function": TOOL}],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        **engines.of(instance).tool_call_fields,
    }
    choice = asked(instance, "What is the weather in Paris, in metric units?", body, seconds)
    calls = choice["message"].get("tool_calls") or []
    problem = call_problem(choice, calls)
    figure = f"{time.monotonic() - began:.1f} s"
    detail = f"{problem}: {shown(choice['message'])}" if problem else called(calls[0])
    return row("tool call", not problem, figure, f"a call of {TOOL['name']}", detail)


def call_problem(choice, calls):
    """Why a reply is no well-formed call, or ""."""
    if not calls:
        return "no tool call, but text"
    problem = argument_problem(calls[0]["function"])
    if problem and choice.get("finish_reason") == "length":
        return f"not whole after {TOKENS} tokens"
    return problem


def argument_problem(function):
    if function["name"] != TOOL["name"]:
        return f"a call of {str(function['name'])[:60]!r}"
    try:
        given = json.loads(function["arguments"])
    except (TypeError, ValueError):
        return "arguments that are not JSON"
    if not isinstance(given, dict) or set(given) != set(TOOL["parameters"]["required"]):
        return "other arguments than the tool's"
    # A format of tags, such as GLM's, may have spaces around a text.
    if str(given["city"]).strip() not in CITIES or not isinstance(given["metric"], bool):
        return "arguments that do not match the tool's schema"
    return ""


def called(call):
    arguments = json.loads(call["function"]["arguments"])
    return f"{call['function']['name']}({json.dumps(arguments, sort_keys=True)})"


def reasoning(instance, seconds=None):
    """Reasoning has a field of its own, and no part or tag of it is in the answer."""
    began, seconds = time.monotonic(), seconds or limit_seconds(TOKENS)
    body = engines.of(instance).reasoning_fields
    choice = asked(instance, "How many days have two weeks? Think first.", body, seconds)
    problem = reasoning_problem(choice)
    figure, detail = f"{time.monotonic() - began:.1f} s", shown(choice["message"])
    limit = "reasoning apart from the answer"
    return row("reasoning", not problem, figure, limit, f"{problem}: {detail}" if problem else "")


def reasoning_problem(choice):
    """Why reasoning is not apart from the answer, or ""."""
    message = choice["message"]
    thoughts, answer = reasoning_of(message), message.get("content") or ""
    if OPENING in answer or CLOSING in answer:
        return "reasoning in the answer"
    # An answer may be missing: the tokens may end before the reasoning does.
    if not thoughts.strip():
        return "no reasoning"
    return "the answer in the reasoning" if CLOSING in thoughts else ""


def asked(instance, text, fields, seconds):
    """The only choice of the reply to one message."""
    body = {
        "model": instance["alias"], "messages": [{"role": "user", "content": text}],
        "max_tokens": TOKENS, "temperature": 0, "seed": 0, **fields,
    }  # fmt: skip
    code, answer = ask(instance, CHAT, body, first_key(instance), seconds)
    refuse_other(code, answer)
    return json.loads(answer)["choices"][0]


def shown(message):
    parts = {name: message.get(name) for name in ("content", "tool_calls")}
    return json.dumps({**parts, "reasoning": reasoning_of(message)})[:SHOWN_CHARACTERS]
