"""Tokens/s of a server against its baseline, and how the baseline is made and removed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.helper_modules import helper_module
from tests.unit.trial_server import Behaviour, instance_plan, trial_server

pytestmark = pytest.mark.slow

baseline = helper_module("checks.baseline")
speed = helper_module("checks.speed")
HostError = helper_module("system.commands").HostError

GATE: dict[str, Any] = {
    "prompt_tokens": [64, 256], "generated_tokens": 32, "runs": 3, "max_runs": 6, "epsilon": 0.1,
}  # fmt: skip
# One for warming up, then two lengths a run.
THREE_RUNS = 7


@pytest.fixture
def plan(does: Behaviour, tmp_path: Path) -> Iterator[dict[str, Any]]:
    with trial_server(does) as port:
        yield instance_plan(tmp_path, port, speed=dict(GATE))


def measured(plan: dict[str, Any], generation: str = "g1") -> dict[str, Any]:
    """The row of a generation, which is kept if it passed."""
    plan["generation"] = generation
    row: dict[str, Any] = speed.speed(plan)
    baseline.keep_baseline(plan, [row])
    return row


def kept(plan: dict[str, Any]) -> Any:
    path = Path(plan["folder"]) / "baseline.json"
    return json.loads(path.read_text()) if path.exists() else None


def runs(does: Behaviour) -> int:
    return sum(path == "/completion" for path, _ in does.asked)


def test_the_first_figures_become_the_baseline(plan: dict[str, Any], does: Behaviour) -> None:
    row = measured(plan)
    assert row["ok"]
    assert row["limit"] == "none yet: these become it"
    assert row["figure"] == (
        "1000 prompt at 64, 50.0 generation at 64, 1000 prompt at 256, 50.0 generation at 256 "
        "tokens/s"
    )
    found = kept(plan)
    assert (found["profile"], found["gpus"], found["lengths"]) == ("p", [0, 1], [64, 256])
    assert found["generation"] == "g1"
    assert found["samples"]["prompt at 64"] == [1000.0] * 3
    assert not (Path(plan["folder"]) / "measured.json").exists()
    assert runs(does) == THREE_RUNS


def test_every_prompt_is_new_and_as_long_as_told(plan: dict[str, Any], does: Behaviour) -> None:
    measured(plan)
    bodies = [body for path, body in does.asked if path == "/completion"]
    assert {len(body["prompt"]) for body in bodies} == {64, 256}
    assert all(not body["cache_prompt"] and body["ignore_eos"] for body in bodies)
    texts = [body["content"] for path, body in does.asked if path == "/tokenize"]
    assert len({text[:60] for text in texts}) == len(texts)


def test_nothing_is_kept_of_a_generation_that_is_not(plan: dict[str, Any]) -> None:
    row = speed.speed(plan)
    assert kept(plan) is None
    baseline.keep_baseline({**plan, "generation": "another"}, [row])
    baseline.keep_baseline(plan, [{**row, "ok": False}])
    baseline.keep_baseline(plan, [])
    assert kept(plan) is None


@pytest.mark.parametrize(("generation", "ok"), [(45.0, True), (44.9, False), (25.0, False)])
def test_nine_tenths_pass_and_less_does_not(
    plan: dict[str, Any], does: Behaviour, generation: float, ok: bool
) -> None:
    measured(plan)
    before = kept(plan)
    does.asked.clear()
    does.generation = itertools.repeat(generation)
    row = measured(plan, "g2")
    assert row["ok"] is ok
    assert row["limit"].startswith("90% of 1000 prompt at 64, 50.0 generation at 64")
    assert kept(plan) == before, "a slower one lowers nothing"
    assert runs(does) == THREE_RUNS
    if not ok:
        share = f"generation at 64: {generation / 50:.1%} of the baseline, too slow"
        assert share in row["detail"]
        assert "prompt" not in row["detail"].split("Next:")[0]
        assert "`corral baseline HOST/chat --forget`" in row["detail"]


def test_a_spread_is_measured_longer_and_given_up_as_failed(
    plan: dict[str, Any], does: Behaviour
) -> None:
    measured(plan)
    does.asked.clear()
    does.generation = itertools.cycle([20.0, 20.0, 80.0, 80.0])
    row = measured(plan, "g2")
    assert row["ok"] is False
    assert "the spread is too wide to tell, after 6 runs" in row["detail"]
    assert runs(does) == 1 + 2 * 6


def test_what_is_slow_beyond_doubt_waits_for_nothing_else(
    plan: dict[str, Any], does: Behaviour
) -> None:
    measured(plan)
    does.asked.clear()
    does.generation = itertools.repeat(20.0)
    does.prompt = itertools.cycle([400.0, 400.0, 1600.0, 1600.0])
    row = measured(plan, "g2")
    assert row["ok"] is False
    assert runs(does) == THREE_RUNS


def test_more_runs_decide_what_three_could_not(plan: dict[str, Any], does: Behaviour) -> None:
    measured(plan)
    does.asked.clear()
    does.generation = itertools.chain([50.0, 46.0, 46.0], itertools.repeat(50.0))
    row = measured(plan, "g2")
    assert row["ok"]
    assert THREE_RUNS < runs(does) < 1 + 2 * 6


def test_a_first_baseline_is_measured_until_it_is_a_good_one(
    plan: dict[str, Any], does: Behaviour
) -> None:
    does.generation = itertools.chain([50.0, 40.0, 40.0], itertools.repeat(50.0))
    row = measured(plan)
    assert row["ok"]
    assert runs(does) == 1 + 2 * 6
    assert len(kept(plan)["samples"]["generation at 64"]) == 6


def test_a_faster_generation_raises_what_it_is_faster_at(
    plan: dict[str, Any], does: Behaviour
) -> None:
    measured(plan)
    does.generation = itertools.repeat(60.0)
    measured(plan, "g2")
    found = kept(plan)
    assert found["samples"]["generation at 64"] == [60.0] * 3
    assert found["samples"]["prompt at 64"] == [1000.0] * 3
    assert found["generation"] == "g2"


@pytest.mark.parametrize(
    "change",
    [{"profile": "other"}, {"gpus": [0]}, {"speed": {**GATE, "prompt_tokens": [64]}},
     {"speed": {**GATE, "generated_tokens": 16}}],
)  # fmt: skip
def test_another_profile_gpu_set_or_length_has_a_baseline_of_its_own(
    plan: dict[str, Any], does: Behaviour, change: dict[str, Any]
) -> None:
    measured(plan)
    does.generation = itertools.repeat(5.0)
    plan["gate"]["speed"] = change.pop("speed", plan["gate"]["speed"])
    plan.update(change)
    assert measured(plan, "g2")["limit"] == "none yet: these become it"
    assert kept(plan)["samples"]["generation at 64"] == [5.0] * 3


ALONE = {"gpu_budgets_mib": [39000], "placement": {"gpu_layers": "all", "cpu_moe_layers": 23}}
BESIDE = {"gpu_budgets_mib": [19000], "placement": {"gpu_layers": "all", "cpu_moe_layers": 39}}


@pytest.mark.parametrize(
    ("now", "is_compared"),
    [
        (ALONE, True),
        # A neighbour took half of the GPU, and layers with it.
        (BESIDE, False),
        # Larger weights or another engine: that server is to be as fast.
        ({**ALONE, "placement": BESIDE["placement"]}, True),
        # A neighbour that left the placement as it was, or a placement that was kept by its keys.
        ({**BESIDE, "placement": ALONE["placement"]}, True),
        ({"gpu_budgets_mib": [], "placement": ALONE["placement"]}, True),
    ],
)
def test_figures_beside_other_neighbours_are_not_compared_where_they_took_layers(
    plan: dict[str, Any], does: Behaviour, now: dict[str, Any], is_compared: bool
) -> None:
    plan.update(ALONE)
    measured(plan)
    does.generation = itertools.repeat(5.0)
    plan.update(now)
    row = measured(plan, "g2")
    assert row["ok"] is not is_compared
    expected = [50.0] * 3 if is_compared else [5.0] * 3
    assert kept(plan)["samples"]["generation at 64"] == expected


def test_a_baseline_of_an_earlier_version_is_compared_with_any_placement(
    plan: dict[str, Any], does: Behaviour
) -> None:
    measured(plan)
    path = Path(plan["folder"]) / "baseline.json"
    old = {key: one for key, one in kept(plan).items() if key not in ALONE}
    path.write_text(json.dumps(old))
    does.generation = itertools.repeat(5.0)
    plan.update(BESIDE)
    assert not measured(plan, "g2")["ok"]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"samples": 3}', '{"samples": {"a": [1]}}', '{"samples": {"a": [1, 0]}}',
     '{"samples": {"a": ["1", "2"]}}'],
)  # fmt: skip
def test_a_damaged_baseline_is_no_baseline_and_fails(
    plan: dict[str, Any], does: Behaviour, text: str
) -> None:
    (Path(plan["folder"]) / "baseline.json").write_text(text)
    with pytest.raises(HostError, match=r"baseline.json is damaged .* --forget"):
        speed.speed(plan)
    assert does.asked == []
    (row,) = baseline.baselines({"instances": [plan]})
    assert "is damaged" in row["problem"]
    assert baseline.forget({"instances": [plan]}) == {"forgotten": ["chat"]}
    assert baseline.forget({"instances": [plan]}) == {"forgotten": []}
    assert speed.speed(plan)["ok"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cached_tokens": 1}, "63 of 64 tokens were read, the rest was cached"),
        ({"generation": itertools.repeat(0.0)}, "reports 0.0 tokens/s"),
        ({"prompt": itertools.repeat(float("inf"))}, "reports inf tokens/s"),
        ({"status": 400}, "answered 400"),
    ],
)
def test_figures_that_say_nothing_are_refused(
    plan: dict[str, Any], does: Behaviour, change: dict[str, Any], said: str
) -> None:
    vars(does).update(change)
    with pytest.raises(HostError, match=said):
        speed.speed(plan)


def test_a_full_disk_leaves_the_old_baseline_and_is_told(
    plan: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = speed.speed(plan)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(baseline, "write_atomic", full)
    baseline.keep_baseline(plan, [row])
    assert kept(plan) is None
    assert "the baseline of chat was not written" in capsys.readouterr().out
