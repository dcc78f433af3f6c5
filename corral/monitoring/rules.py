"""Alerts on which a person acts, each with the command to type. Pure.

Corral's own metrics (corral_*) are in docs/monitoring.md. haproxy_* are of HAProxy, node_* of
node_exporter; engines name their own.
"""

from __future__ import annotations

from typing import Any

from corral.engines import series
from corral.engines.base import Series
from corral.schema import Frozen

RUNBOOK = "docs/runbooks/alerts.md"


class Alert(Frozen):
    """One rule.

    + minutes: how long it holds before it is an alert; + severity: page: somebody is needed now
    + what, command: templates of Prometheus over the labels of the alert
    """

    name: str
    expression: str
    minutes: int
    severity: str
    what: str
    command: str

    @property
    def rule(self) -> dict[str, Any]:
        """As a rules file has it."""
        return {
            "alert": self.name,
            "expr": self.expression,
            "for": f"{self.minutes}m",
            "labels": {"severity": self.severity},
            "annotations": {
                "summary": self.what,
                "command": self.command,
                "runbook": f"{RUNBOOK}#{self.name.lower()}",
            },
        }


# A deploy that fetches weights fills a disk for an hour as if it never ended; what it leaves free
# counts.
_NEARLY_FULL = 0.2
_DISK = 'node_filesystem_{}_bytes{{fstype!~"tmpfs|ramfs|overlay|squashfs"}}'
_BASELINE = 'min by (host, instance) (corral_baseline_tokens_per_second{measure=~"generation.*"})'

_queues = [one.waiting for one in series() if one.waiting]
_caches = [one.kv_used for one in series() if one.kv_used]


def _slow(one: Series) -> str:
    """While it works on one request, as a baseline is measured."""
    rate = f"(rate({one.generated_tokens}[10m]) / rate({one.generating_seconds}[10m]))"
    return (
        f"{rate} < on (host, instance) group_left () (0.7 * {_BASELINE}) "
        f"and avg_over_time({one.running}[10m]) <= 1"
    )


ALERTS: tuple[Alert, ...] = (
    Alert(
        name="CorralDown",
        expression=(
            'corral_instance_healthy == 0 or up{job=~"corral-.*"} == 0 or '
            'time() - node_textfile_mtime_seconds{file=~".*corral.prom"} > 300'
        ),
        minutes=2,
        severity="page",
        what="{{ $labels.instance }} on {{ $labels.host }} does not answer",
        command="corral status {{ $labels.host }}",
    ),
    Alert(
        name="CorralSlow",
        # One request at a time: parallel ones share the GPU, and the baseline has none beside it.
        expression=(" or ".join(_slow(one) for one in series() if one.generating_seconds)),
        minutes=10,
        severity="ticket",
        what="{{ $labels.instance }} on {{ $labels.host }} generates {{ $value | humanize }} "
        "tokens/s, less than 70% of the host's own baseline",
        command="corral bench {{ $labels.host }}/{{ $labels.instance }}",
    ),
    Alert(
        name="CorralServesFromCpu",
        expression=(
            "corral_instance_watchdog_fault == 1 or (corral_instance_vram_held_bytes == 0 and "
            "corral_instance_vram_predicted_bytes > 0 and corral_instance_active == 1)"
        ),
        minutes=1,
        severity="page",
        what="{{ $labels.instance }} on {{ $labels.host }} holds no GPU memory, or the host had to "
        "restart it",
        command="corral logs {{ $labels.host }}/{{ $labels.instance }}",
    ),
    Alert(
        name="CorralMemoryAbovePrediction",
        expression="corral_instance_vram_held_bytes > 1.02 * corral_instance_vram_predicted_bytes",
        minutes=5,
        severity="ticket",
        what="{{ $labels.instance }} on {{ $labels.host }} holds {{ $value | humanize1024 }}B of "
        "GPU memory, more than the fit predicted",
        command="corral status {{ $labels.host }}",
    ),
    Alert(
        name="CorralGpuErrors",
        expression=(
            "increase(corral_gpu_xids_total[1h]) > 0 or "
            "increase(corral_gpu_ecc_uncorrected_total[1h]) > 0 or "
            "corral_gpus_answering < corral_gpus_on_bus or corral_gpu_query_failed == 1"
        ),
        minutes=0,
        severity="page",
        what="a GPU of {{ $labels.host }} has errors or does not answer "
        "({{ $labels.name }} {{ $labels.gpu }})",
        command="corral verify {{ $labels.host }}",
    ),
    Alert(
        name="CorralThrottled",
        # A GPU at its power limit is one that works.
        expression=(
            "max by (host, gpu, name, reason) "
            '(avg_over_time(corral_gpu_throttled{reason!="power_cap"}[10m])) > 0.5'
        ),
        minutes=5,
        severity="ticket",
        what="GPU {{ $labels.gpu }} of {{ $labels.host }} lowers its clocks: {{ $labels.reason }}",
        command="ssh {{ $labels.host }} nvidia-smi -q -d PERFORMANCE,TEMPERATURE,POWER",
    ),
    Alert(
        name="CorralQueue",
        expression=(
            " or ".join(
                f"avg_over_time({name}[5m]) > 1"
                for name in (*_queues, "haproxy_backend_current_queue")
            )
        ),
        minutes=5,
        severity="ticket",
        what="requests wait at {{ $labels.host }} ({{ $labels.instance }}{{ $labels.proxy }}): "
        "{{ $value | humanize }} on average",
        command="corral status {{ $labels.host }}",
    ),
    Alert(
        name="CorralContextFull",
        # Between two requests a slot holds nothing: one long conversation is seen by its peaks.
        expression=" or ".join(
            f"max_over_time({name}[5m]) > 0.95"
            for name in ("corral_instance_kv_used_ratio", *_caches)
        ),
        minutes=5,
        severity="ticket",
        what="{{ $labels.instance }} on {{ $labels.host }} has used {{ $value | humanizePercentage "
        "}} of its KV cache",
        command="corral show {{ $labels.host }}/{{ $labels.instance }}",
    ),
    Alert(
        name="CorralDiskFull",
        expression=(
            f"predict_linear({_DISK.format('avail')}[6h], 86400) < 0 and "
            f"{_DISK.format('avail')} < {_NEARLY_FULL} * {_DISK.format('size')}"
        ),
        minutes=30,
        severity="ticket",
        what="{{ $labels.mountpoint }} of {{ $labels.host }} is full within a day at this rate",
        command="corral engine list {{ $labels.host }}",
    ),
    Alert(
        name="CorralDriverDiffers",
        expression="corral_driver_differs == 1",
        minutes=5,
        severity="page",
        what="{{ $labels.host }} runs driver {{ $labels.module }} with library "
        "{{ $labels.library }}: no server can start on its GPUs",
        command="pyinfra INVENTORY deploy.py --limit {{ $labels.host }} --data allow_reboot=true",
    ),
    Alert(
        name="CorralDrift",
        expression="corral_drift_rows > 0 or corral_weights_corrupt > 0 or corral_unreadable > 0",
        minutes=10,
        severity="ticket",
        what="{{ $labels.host }} differs from what was deployed",
        command="corral drift {{ $labels.host }}",
    ),
    Alert(
        name="CorralRolloutStopped",
        expression=(
            "(corral_instance_waits_for_activation == 1 or "
            "corral_instance_activation_unfinished == 1) "
            "unless on (host) (corral_rollout_holds == 1)"
        ),
        minutes=30,
        severity="ticket",
        what="{{ $labels.instance }} on {{ $labels.host }} waits for a rollout that nobody runs",
        command="corral history {{ $labels.host }}",
    ),
)


def rules() -> dict[str, Any]:
    """The rules file: one group with all alerts."""
    return {"groups": [{"name": "corral", "rules": [alert.rule for alert in ALERTS]}]}
