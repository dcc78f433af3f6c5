"""Parts of the gate that every server must pass: it answers, whole, with its key and not without.

A part takes the instance and gives its row; a fault that it raises counts as failed.
"""

import json
import time

from corral_host.checks.verify import check_vram
from corral_host.instance.gate_rows import gate_plan, row
from corral_host.server.asking import ROUTE_SECONDS, ask, limit_seconds, reply_of, streamed
from corral_host.server.http import chat, first_key, health
from corral_host.system.commands import HostError

CHAT = "POST /v1/chat/completions"
# Between two answers while a server soaks.
ROUND_SECONDS = 5


def completion(instance):
    began, body = time.monotonic(), chat(instance)
    seconds = limit_seconds(body["max_tokens"])
    code, text = ask(instance, CHAT, body, first_key(instance), seconds)
    refuse_other(code, text)
    reply = reply_of(json.loads(text)["choices"][0]["message"])
    return answered("completion", began, seconds, reply)


def stream(instance):
    began, body = time.monotonic(), chat(instance, stream=True)
    seconds = limit_seconds(body["max_tokens"])
    code, text = ask(instance, CHAT, body, first_key(instance), seconds)
    refuse_other(code, text)
    return answered("stream", began, seconds, "".join(map(reply_of, streamed(text))))


def refuse_other(code, text):
    if code != 200:
        raise HostError(f"answered {code}: {text.strip()[:200]}")


def answered(part, began, seconds, reply):
    figure = f"{time.monotonic() - began:.1f} s"
    return row(part, bool(reply.strip()), figure, f"{seconds:g} s", repr(reply[:60]))


def unkeyed(instance):
    """Every route that a key protects refuses a request without one."""
    codes = {}
    for route in instance["keyed_routes"]:
        body = chat(instance) if route.startswith("POST") else None
        codes[route] = ask(instance, route, body)[0]
    open_ones = [f"{route} answered {code}" for route, code in codes.items() if code != 401]
    refused = f"{len(codes) - len(open_ones)} of {len(codes)} routes refuse"
    limit = f"401 from each, in {ROUTE_SECONDS} s"
    return row("unkeyed", not open_ones, refused, limit, ", ".join(open_ones))


def vram(instance):
    _, ok, detail = check_vram(instance)
    planned = " or ".join(f"GPU {gpu}" for gpu in instance["gpus"]) or "any GPU"
    return row("vram", ok, detail, f"memory of {planned}, of no other")


def soak(instance):
    """Healthy and answering for as long as the plan says, the last answer at its end."""
    limit, began, answers = gate_plan(instance)["soak_seconds"], time.monotonic(), 0
    while True:
        code = health(instance)
        if code != "200":
            raise HostError(f"not healthy after {answers} answers: {code}")
        one = completion(instance)
        if not one["ok"]:
            raise HostError(f"an empty completion after {answers} answers")
        answers, seconds = answers + 1, time.monotonic() - began
        if seconds >= limit:
            return row("soak", True, f"{seconds:.0f} s, {answers} answers", f"{limit} s")
        time.sleep(min(ROUND_SECONDS, limit - seconds))
