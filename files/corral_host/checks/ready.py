"""Wait until a server is ready; if it dies, report why, with the end of its log."""

import time

from corral_host.server.http import health
from corral_host.system.commands import TAIL_LINES, HostError, output, say, show

WATCHED = ("ActiveState", "SubState", "InvocationID", "Result", "ExecMainStatus")


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


def invocation(instance):
    return show(instance["unit"], "InvocationID")["InvocationID"]


def journal_tail(start):
    """Last log lines of one start of a unit: the server's, and systemd's about it."""
    matches = (f"_SYSTEMD_INVOCATION_ID={start}", "+", f"INVOCATION_ID={start}")
    options = ("--lines", str(TAIL_LINES), "--output=cat", "--no-pager")
    return output("journalctl", *options, *matches).strip()


def ready(plan):
    for instance in plan["instances"]:
        wait_ready(instance)
    return {"ready": [instance["name"] for instance in plan["instances"]]}
