"""From an instance to its outcome: only what fits is tried, all that was measured is kept."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from corral.bench import job
from corral.bench.tune.record import Requests
from corral.bench.tune.run import Tune, decided, run
from corral.bench.tune.search import Rules
from corral.bench.tune.space import Candidate, Impossible, Space, dimensions_of
from corral.bench.tune.store import TuneStore
from corral.engines.tuning import Machine
from corral.errors import CorralError
from tests.samples import CHAT, host, planner

MACHINE = Machine(cores=4, threads=8)


def space(*only: str, machine: Machine = MACHINE, **more: Any) -> Space:
    made, there = planner(), host(CHAT, **more)
    plan = made.plan_host(there)
    (instance,) = plan.instances
    found = dimensions_of(instance, machine, only=only, where="lab-1/chat")
    return Space(made, there, plan, instance, found)


def tuned(folder: Path, lines: list[str], *only: str) -> Tune:
    own = space(*only)
    plan = planner().plan_host(host(CHAT))
    return Tune(
        host=host(CHAT), plan=plan, instance=plan.instances[0], space=own, where="beside",
        requests=Requests(prompt_tokens=(64, 512), answer_tokens=16, concurrency=2),
        rules=Rules(), store=TuneStore(folder, "subject"), budget_seconds=1e6,
        print_line=lines.append,
    )  # fmt: skip


class FakeHost:
    """Measures: four threads are a fifth faster; ``breaks``: in this block the link is cut."""

    def __init__(self, breaks: int = -1) -> None:
        self.specs: list[dict[str, Any]] = []
        self.breaks, self.chance = breaks, random.Random(1)  # noqa: S311

    def answer(self, question: job.Question, *_: object) -> dict[str, Any]:
        if len(self.specs) == self.breaks:
            self.breaks = -1
            raise CorralError("lab-1", "connection lost", "run the same command again")
        spec = question.spec
        self.specs.append(spec)
        runs = [self.run(spec["servers"][n]["argv"], n, at) for at, n in enumerate(spec["order"])]
        return {
            "began_at": "2026-11-21T16:00:00Z", "seconds": 10.0 * len(runs), "where": "beside",
            "cpu": "EPYC", "gpus": [], "commit": "c0ffee", "runs": runs,
        }  # fmt: skip

    def run(self, argv: list[str], number: int, at: int) -> dict[str, Any]:
        threads = argv[argv.index("--threads") + 1]
        speed = {"3": 100.0, "4": 120.0}.get(threads, 80.0) * self.chance.gauss(1, 0.004)
        lengths = [
            {"prompt_tokens": n, "first_token_seconds": n / 1000, "answer_tokens_per_second": speed}
            for n in (64, 512)
        ]
        # More threads disturb each other at a load.
        first = {"3": 0.1, "4": 0.105}.get(threads, 0.12)
        load = {"requests": 2, "first_token_seconds": first, "tokens_per_second": 50.0}
        figures = {"lengths": lengths, "load": load}
        return {"server": number, "at_seconds": at, "seconds": 1, "figures": figures}


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    made = FakeHost()
    monkeypatch.setattr(job, "answer_of", made.answer)
    monkeypatch.setattr(job, "refuse_other_helper", lambda *_: None)
    return made


def test_the_better_setting_is_found_and_nothing_is_measured_twice(
    there: FakeHost, tmp_path: Path
) -> None:
    one = tuned(tmp_path, [], "threads", "micro-batch")
    assert decided(one) is None
    found = run(one)
    assert (found.verdict, found.choices["threads"]) == ("better", "4")
    assert found.keys["threads"] == 4
    assert found.gain_percent == pytest.approx(20, abs=3)
    measured = len(there.specs)
    again = tuned(tmp_path, [], "threads", "micro-batch")
    assert run(again) == found == decided(again)
    assert len(there.specs) == measured
    now = next(row for row in found.rows if not row.choices)
    assert now.answer_tokens_per_second == pytest.approx(100, rel=0.02)


def test_what_a_better_answer_costs_is_shown(there: FakeHost, tmp_path: Path) -> None:
    """Prompts are equal; the first token comes later: neither of two settings is better in all."""
    found = run(tuned(tmp_path, [], "threads"))
    front = [row.choices.get("threads", "now") for row in found.rows if row.front]
    assert front == ["4", "now"]
    assert {"1", "2"} & {row.choices.get("threads") for row in found.rows if not row.front}
    best, now = (row for row in found.rows if row.front)
    assert best.answer_tokens_per_second > now.answer_tokens_per_second
    assert best.first_token_seconds == pytest.approx(1.05 * now.first_token_seconds, rel=0.001)
    assert there.specs


def test_a_cut_link_loses_one_block_at_most(there: FakeHost, tmp_path: Path) -> None:
    there.breaks = 2
    with pytest.raises(CorralError, match="connection lost"):
        run(tuned(tmp_path, [], "threads", "micro-batch"))
    lines: list[str] = []
    assert run(tuned(tmp_path, lines, "threads", "micro-batch")).verdict == "better"
    assert "kept from before: " in lines[0]
    assert [spec["number"] for spec in there.specs] == list(range(len(there.specs)))


def test_each_run_is_a_server_of_its_own_network_with_a_key_that_is_no_argument(
    there: FakeHost, tmp_path: Path
) -> None:
    run(tuned(tmp_path, [], "threads"))
    argv = there.specs[0]["servers"][0]["argv"]
    assert argv[argv.index("--host") + 1] == "127.0.0.1"
    assert argv[argv.index("--api-key-file") + 1] == there.specs[0]["requests"]["key_file"]
    assert there.specs[0]["requests"]["health"] == "/v1/health"


def test_what_contradicts_or_is_the_same_is_impossible() -> None:
    one = space("micro-batch", "batch")
    subjects = [d.name for d in one.dimensions]
    sizes = [[c.label for c in d.choices] for d in one.dimensions]
    small = sizes[subjects.index("batch")].index("512") + 1
    large = sizes[subjects.index("micro-batch")].index("1024") + 1
    setting = tuple({"batch": small, "micro-batch": large}[name] for name in subjects)
    found = one.at(setting)
    assert isinstance(found, Impossible)
    assert "ubatch_tokens is larger than batch_tokens" in found.why
    assert one.setting(one.choices(setting)) == setting
    assert isinstance(one.at((0, 0)), Candidate)


def test_an_unknown_subject_is_said_with_the_nearest() -> None:
    with pytest.raises(CorralError, match='did you mean "threads"'):
        space("thread")


def test_a_damaged_record_is_said(tmp_path: Path) -> None:
    one = tuned(tmp_path, [], "threads")
    path = one.store.path("lab-1", "chat")
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(CorralError, match="no record of `corral tune`"):
        run(one)
