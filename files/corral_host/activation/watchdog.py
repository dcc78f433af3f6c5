"""The guard: a timer and a unit on the host that settle an activation when nobody else does.

The timer fires if the job is stuck; the unit also runs at boot, after a reboot or a power cut.
"""

import sys
from pathlib import Path

from corral_host.activation.activation import SIDE_BY_SIDE
from corral_host.plans import fields
from corral_host.system.commands import HostError, output, quiet, write_atomic

# On top of the plan's own limits: systemd commands, the gate's requests, writing records.
MARGIN_SECONDS = 60
GATE_SECONDS = 180
# For each probe of a gate that measures.
MEASURED_SECONDS = 900
# How long a revert waits for a port that another program took, or for a cable that was pulled.
OBSTACLE_SECONDS = 300
RETRY_SECONDS = 30

SERVICE = """\
# Written by Corral for one activation, which removes it at its end.
[Unit]
Description=Corral: settle the activation of {instance}
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
Type=exec
# Until it has settled; it cannot, for example, while another activation holds the lock.
Restart=on-failure
RestartSec={retry_seconds}
ExecStart={python} {helper} guard {folder} {units}

[Install]
WantedBy=multi-user.target
"""
TIMER = """\
# Written by Corral for one activation, which removes it at its end.
[Unit]
Description=Corral: settle the activation of {instance} in time

[Timer]
OnActiveSec={limit_seconds}
AccuracySec=1s
"""


class GoingDownError(HostError):
    """The host shuts down: whether a server is healthy cannot be judged now."""


def guard_paths(units, instance):
    base = Path(units) / f"corral-guard-{instance}"
    return Path(f"{base}.service"), Path(f"{base}.timer")


def limit_seconds(plan, how):
    """Longer than all that an activation to this plan and its revert may take."""
    return fields.limit_seconds(plan, how) or limit_of_earlier(plan, how)


def limit_of_earlier(plan, how):
    """The limit for a generation whose plan, staged by an earlier version, has none."""
    measured = plan["gate"]
    gate = GATE_SECONDS + measured["soak_seconds"]
    gate += MEASURED_SECONDS * sum(1 for part in ("speed", "perplexity") if measured[part])
    starts = 3 if how == SIDE_BY_SIDE else 2
    switch = plan["activation"]
    waits = 2 * switch["drain_seconds"] + switch["confirm_seconds"] + OBSTACLE_SECONDS
    return starts * (plan["ready_timeout_seconds"] + gate) + waits + MARGIN_SECONDS


def write(activation):
    """Write both units; `arm` starts them once systemd has read them."""
    service, timer = guard_paths(activation.paths["units"], activation.name)
    values = {
        "instance": activation.name, "folder": activation.folder,
        "units": activation.paths["units"], "helper": activation.paths["helper"],
        "python": sys.executable, "retry_seconds": RETRY_SECONDS,
        "limit_seconds": limit_seconds(activation.plan, activation.how),
    }  # fmt: skip
    write_atomic(service, SERVICE.format(**values))
    write_atomic(timer, TIMER.format(**values))


def arm(activation):
    service, timer = guard_paths(activation.paths["units"], activation.name)
    # The guard of an earlier activation may still run: it would settle this one.
    quiet("stop", service.name)
    # Only a boot reads that it is enabled.
    output("systemctl", "enable", "--quiet", "--no-reload", service.name)
    output("systemctl", "start", timer.name)


def hurry(units, instance):
    """Start the guard now; it retries until it has settled."""
    quiet("start", "--no-block", guard_paths(units, instance)[0].name)


def remove(units, instance):
    """Remove both units, if they exist. Needs no disk space."""
    service, timer = guard_paths(units, instance)
    if service.exists() or timer.exists():
        quiet("stop", timer.name)
        quiet("disable", "--quiet", "--no-reload", service.name)
        for path in (service, timer):
            path.unlink(missing_ok=True)
        output("systemctl", "daemon-reload")
