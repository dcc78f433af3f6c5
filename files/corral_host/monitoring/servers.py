"""Samples of the instances on this host: what runs, what it holds, how it was proved."""

import re
import statistics
from datetime import datetime
from functools import partial
from pathlib import Path

from corral_host import engines
from corral_host.checks import baseline
from corral_host.instance.history import history
from corral_host.instance.stored_plan import STAGED
from corral_host.observe.kept import instances, kept_plan
from corral_host.server.http import first_key
from corral_host.server.probe_client import ask, refuse_other
from corral_host.system.commands import FAULTS, HostError, linked, say
from corral_host.watch.measures import Record
from corral_host.watch.service import records

MIB = 1024**2
SLOTS_SECONDS = 5
KEPT = ("kept", "unchanged")
# A figure of the gate, as checks/speed.py writes it: "41.2 generation at 512".
SPEED = re.compile(r"^([0-9.]+) (.+)$")


def servers(found, paths):
    folders, reports = Path(paths["state"]) / "instances", last_reports(paths)
    seen = instances(paths)
    for name, one in seen["instances"].items():
        folder = folders / name
        served = kept_plan(folder, one["running_generation"]) or one["plan"]
        state(found, name, one, served)
        if not seen["gpu_problem"]:
            memory(found, name, one, served)
        watchdog(found, name, Record(records(paths), name))
        proof(found, name, reports.get(name), one["plan"])
        found.add("corral_instance_activation_unfinished",
                  (folder / "activating.json").exists(), instance=name)  # fmt: skip
        found.add("corral_instance_waits_for_activation",
                  linked(folder, STAGED) is not None, instance=name)  # fmt: skip
        if one["health"] == "ok":
            found.add("corral_instance_kv_used_ratio", kv_used(served), instance=name)


def state(found, name, one, plan):
    """The info metric, and whether the server runs and answers."""
    found.add(
        "corral_instance_info", 1, instance=name, unit=one["unit"],
        generation=one["running_generation"] or "", release=plan.get("release", ""),
        model=plan.get("model", ""), quant=plan.get("quant", ""),
        engine=plan.get("kind", ""), alias=plan.get("alias", ""),
        profile=plan.get("profile", ""),
    )  # fmt: skip
    found.add("corral_instance_active", one["active"] == "active", instance=name)
    found.add("corral_instance_healthy", one["health"] == "ok", instance=name)
    found.add("corral_instance_restarts_total", one["restarts"], instance=name)


def memory(found, name, one, plan):
    """VRAM that the server holds, and what its plan predicted for all its GPUs together."""
    if not plan.get("uses_gpu"):
        return
    if one["vram_mib"] is not None or one["active"] == "active":
        found.add("corral_instance_vram_held_bytes", (one["vram_mib"] or 0) * MIB, instance=name)
    need = plan.get("need") or {}
    if need.get("gpus") and not need.get("unknown"):
        parts = ("weights_mib", "kv_mib", "compute_mib", "runtime_mib")
        predicted = sum(
            max(sum(gpu[part] for part in parts), gpu.get("reserved_mib", 0))
            for gpu in need["gpus"]
        )
        found.add("corral_instance_vram_predicted_bytes", predicted * MIB, instance=name)


def watchdog(found, name, record):
    """What the service that watches servers found, and its restarts of the last hour."""
    found.add("corral_instance_watchdog_fault", bool(record.fault), instance=name)
    found.add("corral_instance_watchdog_restarts", len(record.restarts), instance=name)


def proof(found, name, report, plan):
    """The last activation with the figures of its gate, and the baseline."""
    if report:
        at = moment(report["at"])
        found.add("corral_instance_activated_timestamp_seconds", at, instance=name)
        found.add("corral_instance_activation_kept", report["outcome"] in KEPT, instance=name)
        for row in report.get("gate", ()):
            if row["ok"] is not None:
                found.add("corral_gate_passed", row["ok"], instance=name, part=row["part"])
            for measure, speed in speeds(row):
                found.add("corral_gate_tokens_per_second", speed, instance=name, measure=measure)
    for measure, samples in stored_baseline(name, plan).items():
        mean = statistics.fmean(samples)
        found.add("corral_baseline_tokens_per_second", mean, instance=name, measure=measure)


def speeds(row):
    """Measure and tokens/s of each figure in the speed row of a gate."""
    if row["part"] != "speed":
        return []
    parts = str(row["figure"]).replace(" tokens/s", "").split(", ")
    return [(one[2], float(one[1])) for one in map(SPEED.match, parts) if one]


def stored_baseline(name, plan):
    """Measure -> tokens/s; empty without a baseline, or with one that cannot be read."""
    if "folder" not in plan:
        return {}
    try:
        return (baseline.kept({**plan, "name": name}) or {}).get("samples", {})
    except HostError as fault:
        say(str(fault))
        return {}


def last_reports(paths):
    """Instance -> report of its last activation that changed or tried something."""
    reports = [one for one in history(paths) if one["outcome"] != "refused"]
    return {one["instance"]: one for one in reversed(reports)}


def moment(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def kv_used(plan):
    """Share of its context that the fullest working slot holds; None if the engine does not say."""
    try:
        return engines.of(plan).kv_used(partial(got, plan))
    except FAULTS as fault:
        say(f"{plan.get('name')}: its slots: {type(fault).__name__}: {fault}")
        return None


def got(plan, path):
    code, text = ask(plan, f"GET {path}", key=first_key(plan), seconds=SLOTS_SECONDS)
    refuse_other(code, text)
    return text
