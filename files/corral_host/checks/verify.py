"""Compare running instances with their plan, by all probes of verify."""

from corral_host.checks import prometheus
from corral_host.checks.keys import key_rows
from corral_host.checks.probes import PROBES
from corral_host.gateway.probes import check_gateway
from corral_host.server.probe_client import NoAnswerError
from corral_host.system.commands import FAULTS
from corral_host.weights.presence import weights_row

HANGS = "no answer in time"
# Limit of one answer of a server that may be busy.
ANSWER_SECONDS = 120


def check(plan):
    rows = []
    for instance in plan["instances"]:
        rows += [{"instance": instance["name"], **row} for row in check_instance(instance)]
        rows.append(weights_row(instance, plan["paths"]))
    if gateway := plan.get("gateway"):
        rows += check_gateway(gateway, plan["paths"]["units"])
    if monitoring := plan.get("monitoring"):
        rows += prometheus.rows(monitoring)
    return [*rows, *key_rows(plan)]


def check_instance(instance):
    """Rows of all probes of one instance; a probe that cannot run counts as failed."""
    silence = ""
    for probe in PROBES:
        if not probe.in_verify or not probe.applies(instance):
            continue
        # A server that hangs would make each of these probes wait for its limit.
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
