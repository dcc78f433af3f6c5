"""Pages with something of everything; ``said`` stands wherever a host is free to choose."""

from __future__ import annotations

from typing import Any

from corral.page.document import FleetPage
from corral.rollout.journal import Rollout

GIB = 1024
GATE: list[dict[str, Any]] = [
    {"part": "ready", "ok": True, "figure": "21.4 s", "limit": "600 s", "detail": ""},
    {"part": "golden", "ok": True, "figure": "3 of 3", "limit": "3", "detail": ""},
    {"part": "speed", "ok": True, "figure": "2180 prompt at 4096, 71.3 generation at 4096 tokens/s",
     "limit": "97% of 2210 prompt at 4096, 72.0 generation at 4096 tokens/s", "detail": "5 runs"},
    {"part": "perplexity", "ok": None, "figure": "", "limit": "", "detail": "not asked"},
]  # fmt: skip


def activation(host: str, at: str, **changes: Any) -> dict[str, Any]:
    """A report as a host keeps it."""
    return {
        "host": host, "instance": "glm-air", "at": at, "by": "ann@bastion", "from": "3f9a1c77d2e0",
        "to": "b81d04e6a9c5", "how": "side by side", "outcome": "kept", "serving": "b81d04e6a9c5",
        "phases": [{"phase": "start", "seconds": 21.4}, {"phase": "gate", "seconds": 48.2}],
        "gate": GATE, "gap_seconds": 0.0, **changes,
    }  # fmt: skip


def instance(name: str, **changes: Any) -> dict[str, Any]:
    """A healthy instance."""
    return {
        "name": name, "is_good": True, "endpoint": "http://10.0.4.11:8000",
        "unit": "active (running)", "since": "2026-11-28 09:14:07 UTC", "model": "GLM-4.5-Air",
        "quant": "UD-Q4_K_XL", "health": "ok", "generation": "b81d04e6a9c5",
        "planned_generation": "b81d04e6a9c5", "vram_mib": 71 * GIB, "vram_predicted_mib": 74 * GIB,
        "speeds": [
            {"measure": "prompt at 4096", "per_second": 2180, "baseline_per_second": 2210},
            {"measure": "generation at 4096", "per_second": 71.3, "baseline_per_second": 72.0},
        ],
        **changes,
    }  # fmt: skip


def gpu(index: int, held_gib: int, predicted_gib: int, name: str = "glm-air") -> dict[str, Any]:
    """A GPU of 80 GiB with one holder."""
    holder = {"instance": name, "unit": f"corral-{name}.service", "held_mib": held_gib * GIB,
              "predicted_mib": predicted_gib * GIB}  # fmt: skip
    return {
        "index": index, "name": "NVIDIA H100 80GB HBM3", "uuid": f"GPU-{index}",
        "memory_total_mib": 80 * GIB, "memory_used_mib": held_gib * GIB + 600,
        "utilization_percent": 93, "temperature_celsius": 61, "holders": [holder],
    }  # fmt: skip


def fleet() -> FleetPage:
    """Four hosts: one well, one that needs a look, one with drift, one that does not answer."""
    reverted = activation(
        "gpu-02", "2026-11-29T16:40:11.004Z", outcome="reverted", serving="3f9a1c77d2e0",
        reason="speed: generation at 4096: 81.2% of the baseline, too slow, after 5 runs",
    )  # fmt: skip
    row = {"where": "glm-air", "planned": "generation b81d04e6a9c5", "found": "it does not run",
           "next_step": "`corral verify gpu-03/glm-air`, then deploy gpu-03 again"}  # fmt: skip
    hosts = [
        {"name": "gpu-01", "instances": [instance("glm-air"), instance("glm-flash", speeds=[
            {"measure": "generation at 4096", "per_second": 141.9}])], "gpus": [
            gpu(0, 71, 74), gpu(1, 22, 24, "glm-flash")], "drift": [],
         "history": [activation("gpu-01", "2026-11-29T16:31:02.114Z"),
                     activation("gpu-01", "2026-11-21T08:02:44.700Z", outcome="unchanged")]},
        {"name": "gpu-02", "instances": [instance("glm-air", is_good=False,
                                                  problem="it does not run its plan",
                                                  generation="3f9a1c77d2e0")],
         "gpus": [gpu(0, 78, 74)], "drift": [], "history": [reverted]},
        {"name": "gpu-03", "instances": [instance("glm-air")], "gpus": [gpu(0, 70, 74)],
         "drift": [row], "history": [activation("gpu-03", "2026-11-28T09:14:01.000Z")]},
        {"name": "gpu-04", "problem": "gpu-04: ssh: connect to host 10.0.4.14 port 22: timed out"},
    ]  # fmt: skip
    rollout = {
        "id": "20261129-163000-9c1e", "inventory": "/srv/fleet/inventories/prod.py",
        "by": "ann@bastion", "began_at": "2026-11-29T16:30:00Z", "waves": [
            {"name": "wave 1", "hosts": ["gpu-01"], "instances": 2, "done": 2},
            {"name": "wave 2", "hosts": ["gpu-02", "gpu-03"], "instances": 2, "done": 0}],
        "failure": "gpu-02/glm-air: reverted",
    }  # fmt: skip
    alerts = [
        {"name": "CorralDown", "where": "gpu-04", "what": "gpu-04 does not answer",
         "command": "corral status gpu-04", "severity": "page", "since": "2026-11-29T16:22:10Z"},
        {"name": "CorralDrift", "where": "gpu-03", "what": "gpu-03 differs from what was deployed",
         "command": "corral drift gpu-03", "severity": "ticket", "since": "2026-11-29T04:00:30Z"},
    ]  # fmt: skip
    return FleetPage.model_validate(
        {"made_at": "2026-11-29T16:45:00Z", "hosts": hosts, "rollouts": [rollout],
         "alerts": alerts, "alerts_from": "http://127.0.0.1:9090"}
    )  # fmt: skip


def said_everywhere(said: str) -> FleetPage:
    """A page on which everything that comes from outside is ``said``."""
    report = activation(
        "odd", said, instance="odd", by=said, outcome="reverted", reason=said, how=said, to=said,
        gate=[{"part": said, "ok": False, "figure": said, "limit": said, "detail": said}],
        **{"from": said},
    )  # fmt: skip
    one = instance(
        said, is_good=False, problem=said, endpoint=said, unit=said, since=said, model=said,
        quant=said, health=said, generation=said, planned_generation=f"{said}!",
        in_inventory=False, speeds=[{"measure": said, "per_second": 1, "baseline_per_second": 2}],
    )  # fmt: skip
    row = dict.fromkeys(("where", "planned", "found", "next_step"), said)
    odd_gpu = {**gpu(0, 9, 7), "name": said, "uuid": said}
    odd_gpu["holders"] = [{"instance": said, "unit": said, "held_mib": 1, "predicted_mib": None}]
    hosts = [
        {"name": "odd", "instances": [one], "gpus": [odd_gpu], "gpu_problem": said,
         "history": [report], "drift": [row], "unknown": [said]},
        {"name": "silent", "problem": said},
    ]  # fmt: skip
    wave = {"name": said, "hosts": [said], "instances": 1, "done": 0}
    rollout = {"id": said, "inventory": said, "by": said, "began_at": said, "waves": [wave],
               "failure": said}  # fmt: skip
    alert = {"name": said, "where": said, "what": said, "command": said, "since": said,
             "severity": "page"}  # fmt: skip
    return FleetPage.model_validate(
        {"made_at": "2026-11-29T16:45:00Z", "hosts": hosts, "rollouts": [rollout],
         "alerts": [alert], "alerts_from": said, "alerts_problem": said}
    )  # fmt: skip


def rollout_of_three() -> Rollout:
    """Two waves: the first was kept, the second failed on one host, and the first was reverted."""
    hosts = ("gpu-01", "gpu-02", "gpu-03")
    steps = [
        {"host": name, "instance": "glm-air", "from_generation": "3f9a1c77d2e0",
         "to_generation": "b81d04e6a9c5", "changes": ["quant UD-Q3_K_XL -> UD-Q4_K_XL"],
         "how": "side by side", "estimated_seconds": 90}
        for name in hosts
    ]  # fmt: skip
    slow = [{**row, "ok": False, "detail": "81.2% of the baseline"} if row["part"] == "speed"
            else row for row in GATE]  # fmt: skip
    reports = [
        activation("gpu-01", "2026-11-29T16:31:02.114Z"),
        activation("gpu-03", "2026-11-29T16:36:09.300Z"),
        activation("gpu-02", "2026-11-29T16:36:08.004Z", outcome="reverted", gate=slow,
                   serving="3f9a1c77d2e0", log="llama_context: n_ctx_per_seq = 32768\nslow\n",
                   reason="speed: 81.2% of the baseline, too slow\nafter 5 runs"),
    ]  # fmt: skip
    reverts = [
        activation(name, f"2026-11-29T16:38:{second}.000Z", to="3f9a1c77d2e0", gate=[],
                   **{"from": "b81d04e6a9c5"}, serving="3f9a1c77d2e0")
        for name, second in (("gpu-01", "02"), ("gpu-03", "03"))
    ]  # fmt: skip
    return Rollout.model_validate(
        {"id": "20261129-163000-9c1e", "inventory": "/srv/fleet/inventories/prod.py",
         "by": "ann@bastion", "began_at": "2026-11-29T16:30:00Z",
         "ended_at": "2026-11-29T16:39:30Z", "soak_seconds": 180, "on_failure": "revert",
         "waves": [{"name": "wave 1", "hosts": hosts[:1]}, {"name": "wave 2", "hosts": hosts[1:]}],
         "steps": steps, "begun": [f"{name}/glm-air" for name in hosts], "reports": reports,
         "reverts": reverts, "failure": "gpu-02/glm-air: reverted: too slow",
         "notes": ["wave 2 leaves glm-air with one member"], "exit_code": 10}
    )  # fmt: skip
