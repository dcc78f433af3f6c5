"""The plan of a host's monitoring. Pure."""

from __future__ import annotations

import json
from pathlib import Path

from corral.inventory.hosts import Host
from corral.paths import HostPaths
from corral.plan.gateway import at
from corral.plan.monitoring import MonitoringPlan
from corral.templating import text_environment

EXPORTER = "prometheus-node-exporter"
# Where the distribution's node_exporter looks (Debian's patch 01-Default_settings).
_TEXTFILES = "/var/lib/prometheus/node-exporter"
# An underscore, so that no instance has a unit of this name.
_METRICS, _DAILY = "corral_metrics", "corral_daily"
_GIB = 1024**3


def monitoring_plan(host: Host, paths: HostPaths, templates: Path) -> MonitoringPlan | None:
    """What monitors a host; None for one without ``monitoring``."""
    spec = host.spec.monitoring
    if spec is None:
        return None
    textfile = f"{_TEXTFILES}/corral.prom"
    budget = spec.rehash_gib_per_day
    document = {
        "paths": paths.model_dump(),
        "textfile": textfile,
        "rehash_bytes_per_day": budget and budget * _GIB,
    }
    values = {
        "host": host.name,
        "paths": paths,
        "document": paths.monitoring_document,
        "textfiles": _TEXTFILES,
        "listen": at(spec.address, spec.port),
    }
    render = text_environment(templates)
    texts = {
        **{
            f"{paths.units}/{name}.{kind}": f"{name}.{kind}.j2"
            for name in (_METRICS, _DAILY)
            for kind in ("service", "timer")
        },
        f"{paths.units}/{EXPORTER}.service.d/corral.conf": "node-exporter.conf.j2",
    }
    return MonitoringPlan(
        address=spec.address,
        port=spec.port,
        textfile=textfile,
        packages=(EXPORTER,),
        files={
            paths.monitoring_document: json.dumps(document, indent=1, sort_keys=True) + "\n",
            **{path: render.get_template(name).render(**values) for path, name in texts.items()},
        },
        units=(f"{EXPORTER}.service", f"{_METRICS}.timer", f"{_DAILY}.timer"),
    )
