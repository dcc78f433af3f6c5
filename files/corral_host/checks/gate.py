"""The health gate: what a server must prove before its generation is kept."""

import time
from functools import partial

from corral_host.checks import probes
from corral_host.checks.baseline import keep_baseline
from corral_host.checks.golden import golden
from corral_host.checks.perplexity import perplexity
from corral_host.checks.speed import speed
from corral_host.instance.gate_rows import GateFailed, gate_plan, not_asked, row, told
from corral_host.server.http import health
from corral_host.system.commands import FAULTS, TAIL_LINES, HostError, output, say, show

__all__ = ["EVERYTHING", "PROOF", "GateFailed", "before_start", "gate", "keep_baseline", "ready"]

WATCHED = ("ActiveState", "SubState", "InvocationID", "Result", "ExecMainStatus")
# That an old generation serves again; the rest compares a new one with it.
PROOF = ("ready", "completion", "stream", "unkeyed", "golden", "vram")
EVERYTHING = (*PROOF, "speed", "soak")


class DiedError(HostError):
    """A server that ended before it was ready."""


def gate(instance, parts=EVERYTHING):
    """Rows of all parts that the plan asks for, in order. Raises GateFailed at the first failed.

    ``instance``: an InstancePlan; its unit runs already. A unit that was started again meanwhile
    fails the part in which that was seen.
    """
    first = invocation(instance)
    asked, rows = [part for part in parts if applies(instance, part)], []
    for number, part in enumerate(asked):
        found, reason = attempt(partial(proved, part=part, first=first), instance, part)
        rows.append(found)
        if not found["ok"]:
            raise GateFailed(reason, [*rows, *map(not_asked, asked[number + 1 :])])
    return rows


def before_start(instance):
    """Rows of what is measured while the server is away. Raises GateFailed."""
    if not gate_plan(instance)["perplexity"]:
        return []
    found, reason = attempt(perplexity, instance, "perplexity")
    if not found["ok"]:
        raise GateFailed(reason, [found])
    return [found]


def applies(instance, part):
    plan = gate_plan(instance)
    asked = {
        "golden": plan["golden"], "vram": instance["uses_gpu"], "speed": plan["speed"],
        "soak": plan["soak_seconds"],
    }  # fmt: skip
    return bool(asked.get(part, True))


def proved(instance, part, first):
    found = PARTS[part](instance)
    if invocation(instance) != first:
        raise HostError("the server ended and was started again meanwhile")
    return found


def attempt(one, instance, part):
    """A part's row, and why it failed. What a part cannot find out is failed, too."""
    name = instance["name"]
    try:
        found = one(instance)
    except (*FAULTS, TypeError, AttributeError) as fault:
        found = row(part, False, "", "", told(fault))
        reason = fault if isinstance(fault, HostError) else found["detail"]
        return found, str(reason) if part == "ready" else f"{name}: {part} failed: {reason}"
    outcome = f"{part} {found['figure']}, limit {found['limit']}"
    if found["ok"]:
        say(f"gate of {name}: {outcome}")
    return found, f"{name}: the gate failed. {outcome}. {found['detail']}".strip()


def ready_in_time(instance):
    limit, began = instance["ready_timeout_seconds"], time.monotonic()
    wait_ready(instance)
    return row("ready", True, f"{time.monotonic() - began:.1f} s", f"{limit} s")


PARTS = {
    "ready": ready_in_time, "completion": probes.completion, "stream": probes.stream,
    "unkeyed": probes.unkeyed, "golden": golden, "vram": probes.vram, "speed": speed,
    "soak": probes.soak,
}  # fmt: skip


def invocation(instance):
    return show(instance["unit"], "InvocationID")["InvocationID"]


def wait_ready(instance):
    limit = instance["ready_timeout_seconds"]
    deadline, answer = time.monotonic() + limit, "nothing yet"
    first = invocation(instance)
    while time.monotonic() < deadline:
        now = show(instance["unit"], *WATCHED)
        died = now["InvocationID"] != first or now["SubState"] == "auto-restart"
        if died or now["ActiveState"] in ("failed", "inactive"):
            log = journal_tail(first)
            raise DiedError(
                f"{instance['name']}: the server died at start "
                f"({now['Result']}, exit status {now['ExecMainStatus']}). Its last lines:\n{log}"
            )
        before, answer = answer, health(instance)
        if answer == "200":
            return
        if answer != before:
            say(f"{instance['name']} is not ready yet: {answer}")
        time.sleep(0.2)
    log = journal_tail(first)
    raise HostError(
        f"{instance['name']}: not ready within {limit} s (last answer: {answer}). "
        f"Its last lines:\n{log}"
    )


def journal_tail(start):
    """Last lines of one start of a unit: the server's own, and what systemd says about it."""
    matches = (f"_SYSTEMD_INVOCATION_ID={start}", "+", f"INVOCATION_ID={start}")
    options = ("--lines", str(TAIL_LINES), "--output=cat", "--no-pager")
    return output("journalctl", *options, *matches).strip()


def ready(plan):
    for instance in plan["instances"]:
        wait_ready(instance)
    return {"ready": [instance["name"] for instance in plan["instances"]]}
