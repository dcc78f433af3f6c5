"""One list of probes: gate and verify choose from it, and run the same ones."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.helper_modules import helper_module
from tests.unit.trial_server import Behaviour, instance_plan, trial_server

gate = helper_module("checks.gate")
probes = helper_module("checks.probes")
verify = helper_module("checks.verify")


def test_every_part_of_a_gate_is_a_probe_of_the_list_once() -> None:
    named = [probe.gate for probe in probes.PROBES if probe.gate]
    assert sorted(named) == sorted((*gate.EVERYTHING, "perplexity"))
    shown = [probe.verify for probe in probes.PROBES if probe.verify]
    assert len(set(shown)) == len(shown)
    assert all(probe.gate or probe.verify for probe in probes.PROBES)


def test_what_both_ask_is_the_same_probe() -> None:
    both = {probe.gate: probe.verify for probe in probes.PROBES if probe.gate and probe.verify}
    assert both == {
        "unkeyed": "keys", "completion": "completion", "stream": "stream", "vram": "vram",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("bad", "check"),
    [
        ({"half": True}, "stream"), ({"reply": " "}, "completion"), ({"body": "[]"}, "completion"),
        ({"opens": ("/props",)}, "keys"), ({"status": 500}, "completion"),
    ],
)  # fmt: skip
def test_what_fails_a_gate_fails_verify(tmp_path: Any, bad: dict[str, Any], check: str) -> None:
    does = Behaviour()
    vars(does).update(bad)
    with trial_server(does) as port:
        plan = {**instance_plan(tmp_path, port), "metrics": False}
        rows = {row["check"]: row for row in verify.check_instance(plan)}
    assert rows["health"]["ok"]
    assert not rows[check]["ok"]


def test_a_server_that_is_well_passes_what_is_asked_of_it(tmp_path: Any) -> None:
    with trial_server(Behaviour()) as port:
        plan = {**instance_plan(tmp_path, port), "metrics": False}
        rows = {row["check"]: row for row in verify.check_instance(plan)}
    for check in ("health", "keys", "completion", "stream"):
        assert rows[check]["ok"], rows[check]
    assert rows["keys"]["detail"] == "4 of 4 routes refuse"
