"""The health gate: what a server must prove before its generation is kept."""

import time

from corral_host.check import check_completion
from corral_host.server import call, chat, health
from corral_host.tools import TAIL_LINES, HostError, output, say, show

WATCHED = ("ActiveState", "SubState", "InvocationID", "Result", "ExecMainStatus")
EVERYTHING = PROOF = ("ready", "completion", "unkeyed")


class GateFailed(HostError):  # noqa: N818 - what happened
    """What was proved and what was not, in ``rows``."""

    rows = ()


def before_start(_instance):
    return []


def keep_baseline(_instance, _rows):
    pass


def gate(instance, parts=EVERYTHING):
    """Ready in time, answers with the key, refuses without. Raises HostError with the reason."""
    prove(instance)
    return [{"part": part, "ok": True, "figure": "", "limit": "", "detail": ""} for part in parts]


def prove(instance):
    wait_ready(instance)
    row = check_completion(instance)
    if not row[1]:
        raise HostError(f"{instance['name']}: ready, but a completion failed: {row[2]}")
    code, _ = call(instance, "POST", "/v1/chat/completions", chat(instance), key=None)
    if code != 401:
        raise HostError(
            f"{instance['name']}: a completion without a key was answered {code}, not 401"
        )


def wait_ready(instance):
    limit = instance["ready_timeout_seconds"]
    deadline, answer = time.monotonic() + limit, "nothing yet"
    first = show(instance["unit"], "InvocationID")["InvocationID"]
    while time.monotonic() < deadline:
        now = show(instance["unit"], *WATCHED)
        died = now["InvocationID"] != first or now["SubState"] == "auto-restart"
        if died or now["ActiveState"] in ("failed", "inactive"):
            log = journal_tail(first)
            raise HostError(
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


def journal_tail(invocation):
    """Last lines of one start of a unit: the server's own, and what systemd says about it."""
    matches = (f"_SYSTEMD_INVOCATION_ID={invocation}", "+", f"INVOCATION_ID={invocation}")
    options = ("--lines", str(TAIL_LINES), "--output=cat", "--no-pager")
    return output("journalctl", *options, *matches).strip()


def ready(plan):
    for instance in plan["instances"]:
        wait_ready(instance)
    return {"ready": [instance["name"] for instance in plan["instances"]]}
