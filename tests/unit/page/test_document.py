"""Figures of the page are those that hosts measured."""

from __future__ import annotations

from corral.host.activation_report import Report
from corral.page.document import FleetPage, Speed, gate_speeds
from tests.unit.page.samples import activation, fleet


def test_tokens_per_second_are_those_of_the_gate() -> None:
    report = Report.model_validate(activation("gpu-01", "2026-01-01T00:00:00Z"))
    assert gate_speeds(report) == {"prompt at 4096": 2180, "generation at 4096": 71.3}


def test_a_gate_without_speeds_has_none() -> None:
    odd = [{"part": "speed", "ok": None, "figure": "", "limit": "", "detail": ""},
           {"part": "speed", "ok": True, "figure": "fast, 1..2 x", "limit": "", "detail": ""},
           {"part": "ready", "ok": True, "figure": "3 s", "limit": "", "detail": ""}]  # fmt: skip
    report = Report.model_validate(activation("gpu-01", "2026-01-01T00:00:00Z", gate=odd))
    assert gate_speeds(report) == {}


def test_without_a_baseline_there_is_no_percent() -> None:
    assert Speed(measure="x", per_second=1).percent is None
    assert Speed(measure="x", per_second=1, baseline_per_second=4).percent == 25


def test_the_last_changes_are_of_all_hosts_newest_first() -> None:
    assert [one.host for one in fleet().changes] == ["gpu-02", "gpu-01", "gpu-03", "gpu-01"]


def test_a_fleet_is_well_only_if_all_of_it_is() -> None:
    whole = fleet()
    well = whole.model_copy(update={"hosts": whole.hosts[:1], "alerts": ()})
    assert well.is_good
    for changes in ({"hosts": whole.hosts[1:2]}, {"alerts": whole.alerts}, {"hosts": whole.hosts},
                    {"alerts_problem": "silent"}):  # fmt: skip
        assert not well.model_copy(update=changes).is_good


def test_a_page_reads_back() -> None:
    text = fleet().model_dump_json(by_alias=True)
    assert FleetPage.model_validate_json(text) == fleet()
