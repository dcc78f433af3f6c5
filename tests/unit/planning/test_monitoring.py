"""What a host with ``monitoring`` gets."""

from __future__ import annotations

import json

import pytest

from corral.errors import CorralError
from tests.samples import CHAT, host, planner


def test_node_exporter_listens_where_the_inventory_says_alone() -> None:
    plan = planner().plan_host(host(CHAT, monitoring={"address": "10.0.0.7", "port": 9101}))
    assert plan.monitoring
    assert plan.monitoring.packages == ("prometheus-node-exporter",)
    drop_in = plan.monitoring.files[
        "/etc/systemd/system/prometheus-node-exporter.service.d/corral.conf"
    ]
    assert "--web.listen-address=10.0.0.7:9101 " in drop_in
    # Where the package is installed its service starts: only the drop-in may be there before.
    assert "prometheus-node-exporter" not in plan.packages
    assert "corral_metrics.timer" in plan.monitoring.units


def test_its_address_is_loopback_unless_the_inventory_says_more() -> None:
    plan = planner().plan_host(host(CHAT, monitoring={}))
    assert plan.monitoring
    assert "127.0.0.1:9100" in "".join(plan.monitoring.files.values())


def test_an_address_of_ipv6_is_written_in_brackets() -> None:
    plan = planner().plan_host(host(CHAT, monitoring={"address": "fd00::1"}))
    assert plan.monitoring
    assert "--web.listen-address=[fd00::1]:9100 " in "".join(plan.monitoring.files.values())


def test_the_timer_reads_paths_and_no_secrets() -> None:
    plan = planner().plan_host(host(CHAT, monitoring={}))
    assert plan.monitoring
    document = json.loads(plan.monitoring.files[plan.paths.monitoring_document])
    assert document == {
        "paths": plan.paths.model_dump(),
        "textfile": plan.monitoring.textfile,
        "rehash_bytes_per_day": None,
    }


def test_the_budget_of_reading_weights_is_a_key() -> None:
    plan = planner().plan_host(host(CHAT, monitoring={"rehash_gib_per_day": 2}))
    assert plan.monitoring
    document = json.loads(plan.monitoring.files[plan.paths.monitoring_document])
    assert document["rehash_bytes_per_day"] == 2 * 1024**3
    assert "corral_daily.timer" in plan.monitoring.units


def test_a_host_without_the_key_is_not_monitored() -> None:
    assert planner().plan_host(host(CHAT)).monitoring is None


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"address": "monitoring.example.com"}, "monitoring.address"),
        ({"adress": "10.0.0.1"}, "adress"),
        ({"port": CHAT["port"]}, "share port 8001"),
        ({"port": CHAT["port"] + 10000}, "share port 18001"),
    ],
)
def test_mistakes_are_refused(data: dict[str, object], said: str) -> None:
    with pytest.raises(CorralError, match=said):
        host(CHAT, monitoring=data)
