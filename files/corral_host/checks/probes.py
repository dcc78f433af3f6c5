"""All probes of a running server: one list, from which gate and verify choose."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from corral_host.checks import server_probes, unit_probes
from corral_host.checks.golden import golden
from corral_host.checks.perplexity import perplexity
from corral_host.checks.ready import wait_ready
from corral_host.checks.speed import speed
from corral_host.instance.gate_rows import gate_plan, row


def always(_):
    return True


def on_gpu(instance):
    return instance["uses_gpu"]


class Probe(NamedTuple):
    """One check of a running server.

    ``run``: takes the instance and gives a row; one that ``asks`` the server also takes how many
    seconds an answer may take, as who looks at a server that is busy has more patience than a gate.
    ``applies``: whether an instance's plan wants it. ``gate``, ``verify``: what it is called there,
    empty where it is no part of that.
    """

    run: Callable[..., Any]
    gate: str = ""
    verify: str = ""
    asks: bool = False
    applies: Callable[[Any], Any] = always


def seen(check):
    """A check of the unit as a probe."""

    def run(instance):
        name, ok, found = check(instance)
        return row(name, ok, found, "")

    return run


def vram(instance):
    _, ok, found = unit_probes.check_vram(instance)
    planned = " or ".join(f"GPU {gpu}" for gpu in instance["gpus"]) or "any GPU"
    return row("vram", ok, found, f"memory of {planned}, of no other")


def ready(instance):
    limit, began = instance["ready_timeout_seconds"], time.monotonic()
    wait_ready(instance)
    return row("ready", True, f"{time.monotonic() - began:.1f} s", f"{limit} s")


# In the order in which verify shows them; a gate has an order of its own.
PROBES = (
    Probe(seen(unit_probes.check_process), verify="process"),
    Probe(seen(unit_probes.check_unit), verify="unit"),
    Probe(seen(unit_probes.check_drop_ins), verify="drop-ins"),
    Probe(seen(unit_probes.check_environment), verify="environment"),
    Probe(seen(unit_probes.check_enabled), verify="enabled"),
    Probe(ready, gate="ready"),
    Probe(server_probes.health, verify="health"),
    Probe(server_probes.keys, gate="unkeyed", verify="keys", asks=True),
    Probe(server_probes.model, verify="model", asks=True),
    Probe(server_probes.slots, verify="slots", asks=True),
    Probe(server_probes.completion, gate="completion", verify="completion", asks=True),
    Probe(server_probes.stream, gate="stream", verify="stream", asks=True),
    Probe(
        server_probes.metrics, verify="metrics", asks=True,
        applies=lambda instance: instance["metrics"],
    ),
    Probe(golden, gate="golden", applies=lambda instance: gate_plan(instance)["golden"]),
    Probe(seen(unit_probes.check_listening), verify="listening"),
    Probe(
        seen(unit_probes.check_reserved), verify="reserved",
        applies=lambda instance: instance["endpoint"]["port"],
    ),
    Probe(vram, gate="vram", verify="vram", applies=on_gpu),
    Probe(seen(unit_probes.check_xid), verify="xid", applies=on_gpu),
    Probe(perplexity, gate="perplexity", applies=lambda one: gate_plan(one)["perplexity"]),
    Probe(speed, gate="speed", applies=lambda instance: gate_plan(instance)["speed"]),
    Probe(server_probes.soak, gate="soak", applies=lambda one: gate_plan(one)["soak_seconds"]),
)  # fmt: skip
