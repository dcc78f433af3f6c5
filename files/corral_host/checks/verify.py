"""Compare running instances with their plan: by process, by socket, by HTTP."""

from corral_host.checks.keys import key_rows
from corral_host.checks.probes import PROBES
from corral_host.gateway.probes import check_gateway
from corral_host.server.asking import NoAnswerError
from corral_host.system.commands import FAULTS

HANGS = "no answer in time"
# For one answer of a server that may be busy.
ANSWER_SECONDS = 120


def check(plan):
    rows = []
    for instance in plan["instances"]:
        rows += [{"instance": instance["name"], **row} for row in check_instance(instance)]
    if gateway := plan.get("gateway"):
        rows += check_gateway(gateway, plan["paths"]["units"])
    return [*rows, *key_rows(plan)]


def check_instance(instance):
    """Every probe of one instance; one that cannot be made counts as failed."""
    silence = ""
    for probe in PROBES:
        if not probe.in_verify or not probe.applies(instance):
            continue
        # A server that hangs would keep each of them waiting in turn.
        asked = not (probe.asks and silence)
        row = attempt(probe, instance) if asked else failed(probe, f"not asked: {silence}")
        if probe.name == "health" and not row["ok"]:
            silence = "not healthy"
        if probe.asks and row["detail"] == HANGS:
            silence = HANGS
        yield row


def attempt(probe, instance):
    try:
        found = probe.run(instance, ANSWER_SECONDS) if probe.asks else probe.run(instance)
    except (TimeoutError, NoAnswerError):
        return failed(probe, HANGS)
    except (*FAULTS, TypeError, AttributeError) as error:
        return failed(probe, f"{type(error).__name__}: {error}")
    return {"check": probe.name, "ok": found["ok"], "detail": found["detail"] or found["figure"]}


def failed(probe, detail):
    return {"check": probe.name, "ok": False, "detail": detail}
