"""One list of probes: gate and verify choose from it, and run the same ones."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.helper_modules import helper_module
from tests.unit.trial_server import Behaviour, instance_plan, trial_server

gate = helper_module("checks.gate")
probes = helper_module("checks.probes")
verify = helper_module("checks.verify")


def test_a_probe_has_one_name_and_a_gate_or_verify_that_runs_it() -> None:
    names = [probe.name for probe in probes.PROBES]
    assert len(set(names)) == len(names)
    assert all(probe.in_gate or probe.in_verify for probe in probes.PROBES)
    kinds = {probe.in_gate for probe in probes.PROBES if probe.in_gate}
    assert kinds == {probes.PROOF, probes.COMPARED, probes.BEFORE_START}


def test_what_both_ask_is_the_same_probe() -> None:
    both = [probe.name for probe in probes.PROBES if probe.in_gate and probe.in_verify]
    assert both == ["completion", "stream", "keys", "tool call", "reasoning", "vram"]


def test_a_gate_runs_its_probes_in_the_order_of_the_list() -> None:
    proof = (
        *("ready", "completion", "stream", "keys", "tool call", "reasoning", "golden", "vram"),
    )
    assert proof == gate.PROOF
    assert (*proof, "speed", "soak") == gate.EVERYTHING


@pytest.mark.parametrize("kind", [probes.PROOF, probes.COMPARED, probes.BEFORE_START])
def test_a_new_probe_is_a_row_of_the_list(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    new = probes.Probe("new", lambda _: {}, in_gate=kind)
    monkeypatch.setattr(probes, "PROBES", (*probes.PROBES, new))
    assert probes.of_gate(kind)[-1] == "new"


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
