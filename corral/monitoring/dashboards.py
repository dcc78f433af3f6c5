"""Dashboards for Grafana, made from one description: rows of panels with their queries. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from corral.engines import series
from corral.schema import Frozen

# Grafana replaces it by the data source that an operator chooses when the file is imported.
_SOURCE = {"type": "prometheus", "uid": "${source}"}
_WIDTH, _HEIGHT, _COLUMNS = 12, 8, 2


class Panel(Frozen):
    """One graph. + queries: legend -> PromQL; + unit: as Grafana names it"""

    title: str
    queries: dict[str, str]
    unit: str = "short"


class Dashboard(Frozen):
    """One page.

    + variables: label -> metric that has its values, for a choice above the panels
    + events: name -> query that has a figure while it happens, marked in all panels
    """

    name: str
    title: str
    variables: dict[str, str] = {}
    events: dict[str, str] = {}
    panels: tuple[Panel, ...]


def _tokens(by: str, labels: str = "") -> str:
    counters = [one.generated_tokens for one in series() if one.generated_tokens]
    return " or ".join(
        f"sum by ({by}) (rate({one}{{{labels}}}[$__rate_interval]))" for one in counters
    )


def _any_of(names: Sequence[str], labels: str = "") -> str:
    """Whichever of the series an instance has."""
    return " or ".join(f"{name}{{{labels}}}" if labels else name for name in names if name)


def _vram(labels: str) -> Panel:
    return Panel(
        title="GPU memory held and predicted",
        queries={
            "{{host}}/{{instance}} held": f"corral_instance_vram_held_bytes{{{labels}}}",
            "{{host}}/{{instance}} predicted": f"corral_instance_vram_predicted_bytes{{{labels}}}",
        },
        unit="bytes",
    )


def _quantiles(histogram: str) -> dict[str, str]:
    """Legend -> query for the middle and the slowest of the requests of each alias."""
    rate = f"sum by (proxy, le) (rate({histogram}_bucket{{{_HOST}}}[$__rate_interval]))"
    return {
        f"{{{{proxy}}}} {name}": f"histogram_quantile({share}, {rate})"
        for name, share in (("median", 0.5), ("99%", 0.99))
    }


def _new_generation(labels: str = "") -> str:
    """Two minutes from when an instance has another generation."""
    now = f"corral_instance_info{{{labels}}}"
    return f"{now} unless on (host, instance, generation) ({now} offset 2m)"


_ONE = 'host="$host",instance="$instance"'
_HOST = 'host="$host"'
_PANELS_OF_GPUS = {
    "Memory used": ("corral_gpu_memory_used_bytes", "bytes"),
    "Utilization": ("corral_gpu_utilization_ratio", "percentunit"),
    "Temperature": ("corral_gpu_temperature_celsius", "celsius"),
    "Power": ("corral_gpu_power_watts", "watt"),
    "Clocks": ("corral_gpu_clock_sm_hertz", "hertz"),
    "Throttled": ("corral_gpu_throttled", "short"),
    "Xids since boot": ("corral_gpu_xids_total", "short"),
    "PCIe replays": ("corral_gpu_pcie_replays_total", "short"),
}

DASHBOARDS: tuple[Dashboard, ...] = (
    Dashboard(
        name="corral-fleet",
        title="Corral: fleet",
        events={"New generation": _new_generation(), "Rollout": "corral_rollout_holds > 0"},
        panels=(
            Panel(title="Tokens/s by model", queries={"{{alias}}": _tokens("alias")}),
            Panel(
                title="Instances that do not answer",
                queries={"{{host}}/{{instance}}": "corral_instance_healthy == 0"},
            ),
            Panel(
                title="Requests that wait",
                queries={
                    "{{host}}/{{instance}}": _any_of([one.waiting for one in series()]),
                },
            ),
            Panel(
                title="Alerts", queries={"{{alertname}} {{host}}": 'ALERTS{alertstate="firing"}'}
            ),
            _vram(""),
            Panel(title="Drift", queries={"{{host}}": "corral_drift_rows"}),
            Panel(
                title="Generations",
                queries={
                    "{{host}}/{{instance}} {{generation}} {{quant}}": "corral_instance_info",
                },
            ),
            Panel(title="Rollout holds", queries={"{{host}}": "corral_rollout_holds"}),
        ),
    ),
    Dashboard(
        name="corral-instance",
        title="Corral: one instance",
        variables={"host": "corral_instance_info", "instance": "corral_instance_info"},
        events={
            "New generation": _new_generation(_ONE),
            "Rollout": f"corral_rollout_holds{{{_HOST}}} > 0",
        },
        panels=(
            Panel(
                title="Tokens/s, and the baseline of one request",
                queries={
                    "generated": _tokens("host, instance", _ONE),
                    "baseline: {{measure}}": f"corral_baseline_tokens_per_second{{{_ONE}}}",
                },
            ),
            Panel(
                title="Requests",
                queries={
                    "working": _any_of([one.running for one in series()], _ONE),
                    "waiting": _any_of([one.waiting for one in series()], _ONE),
                },
            ),
            Panel(
                title="Context used",
                queries={
                    "fullest slot": _any_of(
                        ["corral_instance_kv_used_ratio", *(one.kv_used for one in series())], _ONE
                    ),
                },
                unit="percentunit",
            ),
            _vram(_ONE),
            Panel(title="Restarts", queries={"unit": f"corral_instance_restarts_total{{{_ONE}}}"}),
            Panel(title="Last gate", queries={"{{part}}": f"corral_gate_passed{{{_ONE}}}"}),
        ),
    ),
    Dashboard(
        name="corral-gpus",
        title="Corral: one GPU host",
        variables={"host": "corral_gpus_on_bus"},
        panels=tuple(
            Panel(
                title=title,
                queries={"GPU {{gpu}} {{reason}}": f"{metric}{{{_HOST}}}"},
                unit=unit,
            )
            for title, (metric, unit) in _PANELS_OF_GPUS.items()
        ),
    ),
    Dashboard(
        name="corral-gateway",
        title="Corral: gateway",
        variables={"host": "haproxy_backend_active_servers"},
        panels=(
            Panel(
                title="Requests by status",
                queries={
                    "{{proxy}} {{code}}": "sum by (proxy, code) (rate("
                    f"corral_gateway_requests_total{{{_HOST}}}[$__rate_interval]))"
                },
                unit="reqps",
            ),
            Panel(
                title="Answers by class of status, of HAProxy",
                queries={
                    "{{proxy}} {{code}}": "sum by (proxy, code) (rate("
                    f"haproxy_backend_http_responses_total{{{_HOST}}}[$__rate_interval]))"
                },
                unit="reqps",
            ),
            Panel(
                title="Time to the first byte",
                queries=_quantiles("corral_gateway_first_byte_seconds"),
                unit="s",
            ),
            Panel(
                title="Time of a whole answer",
                queries=_quantiles("corral_gateway_request_seconds"),
                unit="s",
            ),
            Panel(
                title="Requests that wait",
                queries={"{{proxy}}": f"haproxy_backend_current_queue{{{_HOST}}}"},
            ),
            Panel(
                title="Servers that are up",
                queries={"{{proxy}}": f"haproxy_backend_active_servers{{{_HOST}}}"},
            ),
        ),
    ),
)


def dashboard_json(dashboard: Dashboard) -> str:
    """A dashboard as Grafana imports it."""
    source = {
        "name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus",
    }  # fmt: skip
    document = {
        "uid": dashboard.name,
        "title": dashboard.title,
        "tags": ["corral"],
        "schemaVersion": 38,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [source, *_choices(dashboard)]},
        "annotations": {"list": [_event(name, q) for name, q in dashboard.events.items()]},
        "panels": [_panel(n, one) for n, one in enumerate(dashboard.panels)],
    }
    return json.dumps(document, indent=1) + "\n"


def _event(name: str, query: str) -> dict[str, Any]:
    shown = {"name": name, "datasource": _SOURCE, "enable": True, "iconColor": "blue"}
    return {**shown, "expr": query}


def _choices(dashboard: Dashboard) -> Sequence[dict[str, Any]]:
    """Choices of labels; each after the first lists what goes with those before."""
    found: list[dict[str, Any]] = []
    for label, metric in dashboard.variables.items():
        before = ",".join(f'{one["name"]}="${one["name"]}"' for one in found)
        query = f"label_values({metric}{{{before}}}, {label})"
        found.append(
            {"name": label, "type": "query", "datasource": _SOURCE, "query": query, "refresh": 2}
        )
    return found


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + n), "expr": query, "legendFormat": legend, "datasource": _SOURCE}
        for n, (legend, query) in enumerate(panel.queries.items())
    ]
    row, column = divmod(number, _COLUMNS)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": _SOURCE,
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "targets": targets,
    }
