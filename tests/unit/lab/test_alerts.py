"""The lab of the alerts: every duration is divided, spans become times, each alert has a fault."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from corral.monitoring.rules import ALERTS, rules
from corral.monitoring.yaml_text import yaml_text
from lab.alerts import pace
from lab.alerts.faults import CAUSES
from lab.alerts.page import markdown_of
from lab.alerts.prometheus import Prometheus, Span
from lab.alerts.timeline import Seen, seen
from lab.layout import Layout
from tests.samples import ROOT
from tests.unit.monitoring.test_rules import ran

TIMES = 15


def test_every_alert_has_a_fault() -> None:
    assert {cause.alert for cause in CAUSES} == {alert.name for alert in ALERTS}


def test_every_duration_of_the_rules_is_divided(tmp_path: Path) -> None:
    document = pace.faster_rules(rules(), TIMES)
    text = yaml_text(document)
    assert not re.findall(r"\[\d+[smhd]\]|86400|> 300\b", text)
    (tmp_path / "corral.yml").write_text(text)
    assert f"{len(ALERTS)} rules found" in ran(tmp_path, "check", "rules", "corral.yml")


def test_an_expression_keeps_its_proportions() -> None:
    expression = "predict_linear(a[6h], 86400) < 0 or time() - b > 300 or rate(c[10m]) > 30"
    assert pace.faster_expression(expression, TIMES) == (
        "predict_linear(a[1440000ms], 5760) < 0 or time() - b > 20 or rate(c[40000ms]) > 30"
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in pace.EDITED:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text())
    return tmp_path


def test_a_copy_of_the_checkout_deploys_faster_rules_until_the_end(checkout: Path) -> None:
    before = [(checkout / name).read_text() for name in pace.EDITED]
    with pace.applied(checkout, TIMES):
        alerts, scrapes, timer, drift = [(checkout / name).read_text() for name in pace.EDITED]
    found: dict[str, Any] = {}
    exec(compile(alerts, pace.EDITED[0], "exec"), found)  # noqa: S102 - our own
    assert found["rules"]() == pace.faster_rules(rules(), TIMES)
    assert '"scrape_interval": "1000ms"' in scrapes
    assert "OnUnitInactiveSec=2\n" in timer
    assert "AGAIN_SECONDS = 40\n" in drift
    assert [(checkout / name).read_text() for name in pace.EDITED] == before


def test_shipped_times_change_nothing(checkout: Path) -> None:
    assert pace.apply(checkout, pace.SHIPPED) == {}


def test_a_text_that_is_no_longer_there_is_an_error(checkout: Path) -> None:
    (checkout / pace.EDITED[1]).write_text("")
    with pytest.raises(SystemExit, match=r"prometheus\.py does not have"):
        pace.apply(checkout, TIMES)


def span(alert: str, state: str, began: float, ended: float) -> Span:
    return Span(alert, state, {}, began, ended)


def test_times_of_an_alert_are_those_of_all_its_series() -> None:
    spans = [
        span("Down", "pending", 105, 110),
        span("Down", "firing", 112, 130),
        span("Down", "pending", 103, 104),
        span("Queue", "pending", 101, 102),
    ]
    assert seen(spans, 100) == (Seen("Queue", 1, None, 2), Seen("Down", 3, 12, 30))


def test_an_alert_that_ends_and_comes_again_has_two_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    metric = {"__name__": "ALERTS", "alertname": "Down", "alertstate": "firing", "host": "lab-1"}
    values = [[at, "1"] for at in (10, 11, 12, 20, 21)]
    document = {"result": [{"metric": metric, "values": values}]}
    monkeypatch.setattr(Prometheus, "_get", lambda *_, **__: document)
    found = Prometheus(Layout.of(ROOT), 1, 1.0).spans(0, 30)
    assert found == [
        Span("Down", "firing", {"host": "lab-1"}, 10, 12),
        Span("Down", "firing", {"host": "lab-1"}, 20, 21),
    ]


@pytest.mark.parametrize(
    ("states", "state"),
    [
        (("pending", "firing"), "firing"),
        (("firing", "pending"), "firing"),
        (("pending",), "pending"),
    ],
)
def test_one_series_that_fires_is_enough(
    monkeypatch: pytest.MonkeyPatch, states: tuple[str, ...], state: str
) -> None:
    alerts = [{"labels": {"alertname": "Down"}, "state": one} for one in states]
    monkeypatch.setattr(Prometheus, "_get", lambda *_, **__: {"alerts": alerts})
    assert Prometheus(Layout.of(ROOT), 1, 1.0).active() == {"Down": state}


def test_the_page_has_the_tables_of_its_records() -> None:
    folder = ROOT / "docs" / "measurements"
    page = (folder / "alerts.md").read_text()
    for name in ("alerts.json", "alerts-healthy.json"):
        document = json.loads((folder / name).read_text())
        assert markdown_of(document) in page, name
