"""The list of all probes of a running server, from which gate and verify choose."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from corral_host import runtimes
from corral_host.checks import chat_probes, server_probes, unit_probes
from corral_host.checks.golden import golden
from corral_host.checks.perplexity import perplexity
from corral_host.checks.ready import wait_ready
from corral_host.checks.speed import speed
from corral_host.instance.gate_rows import gate_plan, row


def always(_):
    return True


def on_gpu(instance):
    return instance["uses_gpu"]


def has_image(instance):
    return runtimes.of(instance).images


def has_drafts(instance):
    # Plans of earlier versions do not say it.
    return instance.get("drafts_tokens", False)


# Kinds of probes in a gate: PROOF that a generation serves, also an old one after a revert;
# COMPARED with the old one; and BEFORE_START, measured while the server is stopped.
PROOF, COMPARED, BEFORE_START = "proof", "compared", "before start"


class Probe(NamedTuple):
    """One check of a running server.

    ``run``: takes the instance and returns a row; if it ``asks`` the server, it also takes the
    limit of an answer in seconds, as verify waits longer for a busy server than a gate.
    ``applies``: whether an instance's plan wants the probe. ``in_gate``: PROOF, COMPARED or
    BEFORE_START, empty if the probe is not in a gate.
    """

    name: str
    run: Callable[..., Any]
    in_gate: str = ""
    in_verify: bool = False
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


# In the order in which a gate and verify run them.
PROBES = (
    Probe("process", seen(unit_probes.check_process), in_verify=True),
    Probe("image", seen(unit_probes.check_image), in_verify=True, applies=has_image),
    Probe("unit", seen(unit_probes.check_unit), in_verify=True),
    Probe("drop-ins", seen(unit_probes.check_drop_ins), in_verify=True),
    Probe("environment", seen(unit_probes.check_environment), in_verify=True),
    Probe("enabled", seen(unit_probes.check_enabled), in_verify=True),
    Probe("ready", ready, in_gate=PROOF),
    Probe("health", server_probes.health, in_verify=True),
    Probe("model", server_probes.model, in_verify=True, asks=True),
    Probe("slots", server_probes.slots, in_verify=True, asks=True),
    Probe("completion", server_probes.completion, in_gate=PROOF, in_verify=True, asks=True),
    Probe("stream", server_probes.stream, in_gate=PROOF, in_verify=True, asks=True),
    Probe("keys", server_probes.keys, in_gate=PROOF, in_verify=True, asks=True),
    Probe(
        "tool call", chat_probes.tool_call, in_gate=PROOF, in_verify=True, asks=True,
        applies=lambda instance: gate_plan(instance)["tool_call"],
    ),
    Probe(
        "reasoning", chat_probes.reasoning, in_gate=PROOF, in_verify=True, asks=True,
        applies=lambda instance: gate_plan(instance)["reasoning"],
    ),
    Probe(
        "metrics", server_probes.metrics, in_verify=True, asks=True,
        applies=lambda instance: instance["metrics"],
    ),
    Probe("drafts", server_probes.drafts, in_verify=True, asks=True, applies=has_drafts),
    Probe("golden", golden, in_gate=PROOF, applies=lambda one: gate_plan(one)["golden"]),
    Probe("listening", seen(unit_probes.check_listening), in_verify=True),
    Probe(
        "reserved", seen(unit_probes.check_reserved), in_verify=True,
        applies=lambda instance: instance["endpoint"]["port"],
    ),
    Probe("vram", vram, in_gate=PROOF, in_verify=True, applies=on_gpu),
    Probe("xid", seen(unit_probes.check_xid), in_verify=True, applies=on_gpu),
    Probe(
        "perplexity", perplexity, in_gate=BEFORE_START,
        applies=lambda instance: gate_plan(instance)["perplexity"],
    ),
    Probe("speed", speed, in_gate=COMPARED, applies=lambda one: gate_plan(one)["speed"]),
    Probe(
        "soak", server_probes.soak, in_gate=COMPARED,
        applies=lambda instance: gate_plan(instance)["soak_seconds"],
    ),
)  # fmt: skip


def of_gate(*kinds):
    """Names of the probes of these kinds in a gate, in order."""
    return tuple(probe.name for probe in PROBES if probe.in_gate in kinds)
