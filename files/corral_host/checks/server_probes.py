"""Probes by HTTP: the server answers completely, as planned, with its key and not without.

Each probe takes the instance and the limit of an answer in seconds (None: its own limit), and
returns a row. If it raises a fault it has failed.
"""

import json
import time
from functools import partial

from corral_host import engines
from corral_host.instance.gate_rows import gate_plan, row
from corral_host.server.http import call, chat, first_key
from corral_host.server.http import health as health_of
from corral_host.server.probe_client import (
    ROUTE_SECONDS,
    ask,
    limit_seconds,
    refuse_other,
    reply_of,
    streamed,
)
from corral_host.system.commands import HostError

CHAT = "POST /v1/chat/completions"
HEALTH_SECONDS = 10
# Pause between two answers of a soak.
ROUND_SECONDS = 5


def health(instance, seconds=None):
    code, body = call(instance, "GET", "/health", timeout=seconds or HEALTH_SECONDS)
    return row("health", code == 200, f"{code} {body.strip()[:80]}", "200")


def completion(instance, seconds=None):
    began, body = time.monotonic(), chat(instance)
    seconds = seconds or limit_seconds(body["max_tokens"])
    code, text = ask(instance, CHAT, body, first_key(instance), seconds)
    refuse_other(code, text)
    reply = reply_of(json.loads(text)["choices"][0]["message"])
    return answered("completion", began, seconds, reply)


def stream(instance, seconds=None):
    began, body = time.monotonic(), chat(instance, stream=True)
    seconds = seconds or limit_seconds(body["max_tokens"])
    code, text = ask(instance, CHAT, body, first_key(instance), seconds)
    refuse_other(code, text)
    return answered("stream", began, seconds, "".join(map(reply_of, streamed(text))))


def answered(part, began, seconds, reply):
    figure = f"{time.monotonic() - began:.1f} s"
    return row(part, bool(reply.strip()), figure, f"{seconds:g} s", repr(reply[:60]))


def keys(instance, seconds=None):
    """Every protected route refuses a request without a key."""
    codes, seconds = {}, seconds or ROUTE_SECONDS
    for route in instance["keyed_routes"]:
        body = chat(instance) if route.startswith("POST") else None
        codes[route] = ask(instance, route, body, seconds=seconds)[0]
    open_ones = [f"{route} answered {code}" for route, code in codes.items() if code != 401]
    refused = f"{len(codes) - len(open_ones)} of {len(codes)} routes refuse"
    return row(
        "keys", not open_ones, refused, f"401 from each, in {seconds} s", ", ".join(open_ones)
    )


def model(instance, seconds=None):
    served = json.loads(keyed(instance, "/v1/models", seconds))["data"][0]["id"]
    return row("model", served == instance["alias"], f"serves as {served}", instance["alias"])


def slots(instance, seconds=None):
    """Number and size of the slots, if the server reports them."""
    count, context = engines.of(instance).slots(partial(keyed, instance, seconds=seconds))
    if count is None and context is None:
        return row("slots", True, "not reported by this engine", "")
    planned = [instance["slots"], instance["context_tokens_per_slot"]]
    same = [found in (None, wanted) for found, wanted in zip((count, context), planned)]
    shown = "slots" if count is None else f"{count} slots"
    return row("slots", all(same), f"{shown} of {context} tokens", "{} of {}".format(*planned))


def metrics(instance, seconds=None):
    lines = keyed(instance, "/metrics", seconds).splitlines()
    count = sum(1 for line in lines if line and not line.startswith("#"))
    return row("metrics", count > 0, f"{count} values", "1 value")


def drafts(instance, seconds=None):
    """Share of the drafted tokens that were accepted since the start, if the server reports it."""
    found = engines.of(instance).drafts(partial(keyed, instance, seconds=seconds))
    if found is None:
        return row("drafts", True, "not reported by this engine", "")
    drafted, accepted = found
    if not drafted:
        return row("drafts", True, "nothing drafted since the start", "")
    share = f"{accepted:.0f} of {drafted:.0f} drafted tokens accepted ({accepted / drafted:.0%})"
    return row("drafts", True, share, "")


def keyed(instance, path, seconds=None):
    key = first_key(instance)
    code, body = ask(instance, f"GET {path}", key=key, seconds=seconds or ROUTE_SECONDS)
    if code != 200:
        raise HostError(f"{path} answered {code}")
    return body


def soak(instance):
    """The server stays healthy and answers for as long as the plan says, and at its end."""
    limit, began, answers = gate_plan(instance)["soak_seconds"], time.monotonic(), 0
    while True:
        code = health_of(instance)
        if code != "200":
            raise HostError(f"not healthy after {answers} answers: {code}")
        one = completion(instance)
        if not one["ok"]:
            raise HostError(f"an empty completion after {answers} answers")
        answers, seconds = answers + 1, time.monotonic() - began
        if seconds >= limit:
            return row("soak", True, f"{seconds:.0f} s, {answers} answers", f"{limit} s")
        time.sleep(min(ROUND_SECONDS, limit - seconds))
