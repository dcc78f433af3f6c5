"""Wait until a server is ready; if it dies, report why, with the end of its log."""

import json
import time

from corral_host import engines
from corral_host.server.http import chat, health, loaded_key
from corral_host.server.probe_client import ask, refuse_other
from corral_host.system.commands import FAULTS, TAIL_LINES, HostError, output, say, show

WATCHED = ("ActiveState", "SubState", "InvocationID", "Result", "ExecMainStatus")
# A reason is followed by the errors of processes that depend on the one that failed.
REASON_LINES = 1000
# The first request may compile; one that takes longer is sent again.
FIRST_ANSWER_SECONDS = 120
READY = "ready"


class DiedError(HostError):
    """A server that ended before it was ready."""


def wait_ready(instance):
    limit = instance["ready_timeout_seconds"]
    deadline, answer = time.monotonic() + limit, "nothing yet"
    first = invocation(instance)
    while time.monotonic() < deadline:
        now = show(instance["unit"], *WATCHED)
        died = now["InvocationID"] != first or now["SubState"] == "auto-restart"
        if died or now["ActiveState"] in ("failed", "inactive"):
            raise death(instance, now, first)
        before, answer = answer, state(instance, deadline - time.monotonic())
        if answer == READY:
            return
        if answer != before:
            say(f"{instance['name']} is not ready yet: {answer}")
        time.sleep(0.2)
    log = journal_tail(first)
    raise HostError(
        f"{instance['name']}: not ready within {limit} s (last answer: {answer}). "
        f"Its last lines:\n{log}"
    )


def state(instance, seconds):
    """READY, or what a server answers that is not."""
    answer = health(instance)
    if answer != "200":
        return answer
    if engines.of(instance).health_is_ready:
        return READY
    try:
        first_answer(instance, max(1, min(seconds, FIRST_ANSWER_SECONDS)))
    except FAULTS as fault:
        return f"healthy, but it does not answer a request: {str(fault).splitlines()[0]}"
    return READY


def first_answer(instance, seconds):
    """One token of a completion. Raises one of FAULTS if there is none."""
    body = {**chat(instance), "max_tokens": 1}
    route = "POST /v1/chat/completions"
    code, text = ask(instance, route, body, loaded_key(instance), seconds)
    refuse_other(code, text)
    if not json.loads(text)["choices"]:
        raise HostError("a reply without a choice")


def death(instance, unit, start):
    """A DiedError with the reason, or with the last lines of the log if they do not say it."""
    what = (
        f"{instance['name']}: the server died at start "
        f"({unit['Result']}, exit status {unit['ExecMainStatus']})"
    )
    reason = engines.of(instance).why_it_ended(journal_tail(start, REASON_LINES))
    if reason is None:
        return DiedError(f"{what}. Its last lines:\n{journal_tail(start)}")
    why, next_step = reason
    return DiedError(f"{what}: {why}", next_step)


def invocation(instance):
    return show(instance["unit"], "InvocationID")["InvocationID"]


def journal_tail(start, lines=TAIL_LINES):
    """Last log lines of one start of a unit: the server's, and systemd's about it."""
    matches = (f"_SYSTEMD_INVOCATION_ID={start}", "+", f"INVOCATION_ID={start}")
    options = ("--lines", str(lines), "--output=cat", "--no-pager")
    return output("journalctl", *options, *matches).strip()


def ready(plan):
    for instance in plan["instances"]:
        wait_ready(instance)
    return {"ready": [instance["name"] for instance in plan["instances"]]}
