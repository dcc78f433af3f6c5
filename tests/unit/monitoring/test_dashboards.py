"""Dashboards: valid queries of metrics that exist, in JSON that Grafana imports."""

from __future__ import annotations

import json
import re
from pathlib import Path

from corral.monitoring.dashboards import DASHBOARDS, dashboard_json
from corral.monitoring.yaml_text import yaml_text
from tests.samples import ROOT
from tests.unit.monitoring.test_rules import ran

# Of programs that are scraped as they are, in the versions that Corral pins or Debian 12 has.
OTHERS = {
    "llamacpp:tokens_predicted_total", "llamacpp:requests_deferred",
    "llamacpp:requests_processing", "vllm:generation_tokens_total", "vllm:num_requests_running",
    "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc", "haproxy_backend_active_servers",
    "haproxy_backend_current_queue", "haproxy_backend_http_responses_total",
    "ALERTS",
}  # fmt: skip
METRIC = re.compile(r"\b(corral_\w+|(?:llamacpp|vllm):\w+|haproxy_\w+|ALERTS)\b")
EVENTS = [query for one in DASHBOARDS for query in one.events.values()]
QUERIES = [
    *(query for one in DASHBOARDS for panel in one.panels for query in panel.queries.values()),
    *EVENTS,
]


def own() -> set[str]:
    """Every metric that the host helper writes."""
    files = (ROOT / "files/corral_host/monitoring").glob("*.py")
    names = {name for path in files for name in re.findall(r'"(corral_\w+)"', path.read_text())}
    return names | {f"{name}_bucket" for name in names if name.endswith("_seconds")}


def test_every_query_asks_for_metrics_that_exist() -> None:
    known = own() | OTHERS
    used = [one.variables for one in DASHBOARDS]
    asked = {name for query in QUERIES for name in METRIC.findall(query)}
    asked |= {metric for variables in used for metric in variables.values()}
    assert "corral_instance_info" in own()
    assert asked - known == set()


def test_promtool_parses_every_query(tmp_path: Path) -> None:
    rules = [
        {"record": f"query:{number}", "expr": query.replace("$__rate_interval", "1m")}
        for number, query in enumerate(QUERIES)
    ]
    document = {"groups": [{"name": "queries", "rules": rules}]}
    (tmp_path / "queries.yml").write_text(yaml_text(document))
    assert f"{len(QUERIES)} rules found" in ran(tmp_path, "check", "rules", "queries.yml")


def test_panels_do_not_overlap_and_name_a_source_that_the_operator_chooses() -> None:
    for dashboard in DASHBOARDS:
        document = json.loads(dashboard_json(dashboard))
        places = [(one["gridPos"]["x"], one["gridPos"]["y"]) for one in document["panels"]]
        assert len(set(places)) == len(places) == len(dashboard.panels)
        names = [one["name"] for one in document["templating"]["list"]]
        assert names == ["source", *dashboard.variables]
        variables = set(re.findall(r"\$(\w+)", json.dumps(document["panels"])))
        assert variables <= {"host", "instance", "__rate_interval"} & {*names, "__rate_interval"}
