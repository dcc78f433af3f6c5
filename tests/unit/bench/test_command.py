"""`corral bench`: the words a person types, and the job behind them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from corral.bench import job
from corral.bench.result import Result as Measured
from corral.bench.run import Benchmark, run
from corral.bench.store import ResultStore
from corral.cli import cli
from corral.errors import CorralError
from corral.host.reading import read_answer
from corral.host.state import HostState
from corral.remote import transport
from corral.remote.bounded import Ended
from corral.remote.client import HelperClient
from tests.samples import CHAT, host, plan, planner
from tests.unit.bench_samples import measure, result
from tests.unit.fake_client import travelling

ROW = '{"n_prompt": 0, "n_gen": 128, "n_depth": 0, "samples_ts": [10.0, 11.0]}'
BATCHED = '{"pl": 2, "pp": 512, "tg": 128, "speed_pp": 20.0, "speed_tg": 21.0}'


def corral(*words: str) -> Result:
    return CliRunner().invoke(cli, ["bench", *words])


@dataclass
class FakeHost:
    """Keeps a job as a host does; ``ends`` is what its next run gives."""

    answer: dict[str, Any] | None = None
    error: str = ""
    running: dict[str, Any] | None = None
    starts: int = 0
    ends: Callable[[dict[str, Any]], None] = field(default=lambda _: None)

    def ask(self, words: list[str], shape: Any, text: str = "", **_: object) -> Any:
        return read_answer(shape, json.dumps(self._answer(words, text)))

    def _answer(self, words: list[str], text: str) -> Any:
        if words[0] == "start":
            spec = json.loads(text)["spec"]
            self.starts += 1
            joined = self.running == spec
            self.answer, self.running = None, spec
            self.ends(spec)
            return {"joined": joined, "by": "ann on desk"}
        ok = self.answer is not None
        news = {"running": bool(self.running) and not ok, "ok": ok, "error": self.error}
        return {**news, "answer": self.answer, "offset": 0, "tail": ["run 1 of 1", '{"x": 1}']}

    def done(self, began_at: str = "2026-11-21T16:00:00Z") -> None:
        self.answer = {
            "began_at": began_at, "seconds": 1, "where": "beside", "cpu": "EPYC", "gpus": [],
            "commit": "0c1e57", "outputs": [[[ROW]], [[BATCHED]]],
        }  # fmt: skip


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    made = FakeHost()
    made.ends = lambda _: made.done()
    monkeypatch.setattr(HelperClient, "ask", made.ask)
    monkeypatch.setattr(job, "refuse_other_helper", lambda *_: None)
    return made


def test_it_is_measured_in_the_memory_of_the_nodes_that_the_server_has() -> None:
    assert benchmark().spec()["properties"] == ()
    bound = benchmark(numa_memory="bind", numa_nodes="0").spec()["properties"]
    assert bound == ("NUMAPolicy=bind", "NUMAMask=0", "CPUAffinity=numa")


def benchmark(**profile: Any) -> Benchmark:
    planned = planner(**profile).plan_host(host(CHAT))
    return Benchmark(host(CHAT), planned, planned.instances[0], "beside", 5)


def measured(store: ResultStore, said: list[str] | None = None) -> Measured:
    return run(benchmark(), store, (said if said is not None else []).append)


def test_a_result_is_kept_with_all_that_it_belongs_to(there: FakeHost, tmp_path: Path) -> None:
    said: list[str] = []
    found = measured(ResultStore(tmp_path), said)
    kept = tmp_path / found.host / found.instance / "2026-11-21T160000Z.json"
    assert said == ["started; it goes on without this command", f"kept in {kept}"]
    assert Measured.model_validate_json(kept.read_text()) == found
    one = benchmark()
    assert (found.release, found.generation) == (one.instance.release, one.instance.generation)
    assert found.commit == "0c1e57"
    assert [m.samples for m in found.measures] == [(10.0, 11.0), (20.0,), (21.0,)]
    assert there.starts == 1
    assert found.commands[0][0].endswith("/bin/llama-bench")


def test_asking_again_measures_again(there: FakeHost, tmp_path: Path) -> None:
    measured(ResultStore(tmp_path))
    measured(ResultStore(tmp_path))
    assert there.starts == 2


def test_a_run_that_lost_its_controller_is_joined(there: FakeHost, tmp_path: Path) -> None:
    there.running = json.loads(json.dumps(benchmark().spec()))
    said: list[str] = []
    measured(ResultStore(tmp_path), said)
    assert said[0] == "joining the one that ann on desk started"


def lose(there: FakeHost, store: ResultStore) -> None:
    def lost(_: dict[str, Any]) -> None:
        raise CorralError("node-1", "connection lost", "ask again")

    there.ends, ends = lost, there.ends
    with pytest.raises(CorralError, match="connection lost"):
        measured(store)
    there.ends = ends


def test_a_result_that_nobody_waited_for_is_fetched_once(there: FakeHost, tmp_path: Path) -> None:
    store, said = ResultStore(tmp_path), list[str]()
    lose(there, store)
    there.done("2026-11-21T17:00:00Z")
    assert measured(store, said).began_at == "2026-11-21T17:00:00Z"
    assert said[0] == "fetching the result of the one that ended meanwhile"
    assert there.starts == 1
    measured(store)
    assert there.starts == 2


def test_a_result_that_was_there_before_is_not_taken_for_the_lost_one(
    there: FakeHost, tmp_path: Path
) -> None:
    store = ResultStore(tmp_path)
    there.done("2026-11-20T00:00:00Z")
    before = there.answer
    lose(there, store)
    there.answer = before
    assert measured(store).began_at == "2026-11-21T16:00:00Z"
    assert there.starts == 2


def test_a_failed_run_is_told_with_what_comes_next(there: FakeHost, tmp_path: Path) -> None:
    there.ends = lambda _: setattr(there, "running", None)
    there.error = "lab-1/chat does not run (failed). Next: `corral start lab-1/chat`"
    with pytest.raises(CorralError) as error:
        measured(ResultStore(tmp_path))
    assert str(error.value) == (
        "lab-1/chat: does not run (failed)\n  Next: `corral start lab-1/chat`"
    )
    there.error = "it ended without a result (killed, or a reboot). Next: run the same deploy again"
    with pytest.raises(
        CorralError, match="ended without a result.*\n  Next: run the same command again"
    ):
        measured(ResultStore(tmp_path))


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (255, "connection lost .Broken pipe.*\n  Next: run the same command again: it joins"),
        (1, "lab-1: Broken pipe\n  Next: fix that"),
    ],
)
def test_a_host_that_does_not_answer_is_told(
    monkeypatch: pytest.MonkeyPatch, code: int, told: str
) -> None:
    ended = Ended(code, b"", b"Broken pipe\n")
    monkeypatch.setattr(transport, "run_within", lambda *_, **__: ended)
    with pytest.raises(CorralError, match=told):
        job.poll(host(CHAT), "/h.pyz", "bench-chat", 0)


@pytest.mark.parametrize(("sha256", "what"), [("ab", "another version's"), (None, "not deployed")])
def test_a_host_without_this_helper_is_refused(
    monkeypatch: pytest.MonkeyPatch, sha256: str | None, what: str
) -> None:
    state = HostState(helper_sha256=sha256)
    monkeypatch.setattr(job, "travelling_helper", travelling(lambda *_: state))
    with pytest.raises(CorralError, match=f"{what}\n  Next: deploy the host"):
        job.refuse_other_helper(host(CHAT), plan(CHAT))


def test_a_first_word_that_is_no_command_is_what_to_run() -> None:
    for words in (("absent",), ("run", "absent"), ("--stop", "absent"), ("-i", "x.py", "absent")):
        done = corral(*words)
        assert isinstance(done.exception, CorralError), done.output
    assert "Usage" in corral("--help").output
    assert "compare" in corral().output


def test_an_unknown_instance_tells_the_near_miss() -> None:
    error = corral("tiny-chta", "-i", "inventories/lab.py").exception
    assert 'did you mean "tiny-chat"' in str(error)


def test_what_cannot_be_drawn_is_refused_before_anything_is_measured() -> None:
    assert "neither .png nor .svg" in str(corral("tiny-chat", "--plot", "a.gif").exception)


def test_results_are_listed_and_compared(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    file = store.save(result(measure(10, 11, 12)))
    store.save(result(measure(20, 21, 22), instance="other"))
    listed = corral("list", "--results", str(tmp_path)).output
    assert "node-1/chat" in listed
    assert "node-1/other" in listed
    drawing = tmp_path / "a.svg"
    words = ("compare", str(file), "node-1/other", "--results", str(tmp_path))
    done = corral(*words, "--plot", str(drawing))
    assert (done.exit_code, drawing.exists()) == (0, True)
    assert "B faster by 91%" in done.output
    (row,) = json.loads(corral(*words, "--json").output)["rows"]
    assert (row["verdict"], row["a"]["mean"], row["b"]["samples"]) == ("b", 11, 3)


def test_lists_are_json_for_programs(tmp_path: Path) -> None:
    assert json.loads(corral("list", "--json", "--results", str(tmp_path)).output) == []
    ResultStore(tmp_path).save(result())
    (one,) = json.loads(corral("list", "--json", "--results", str(tmp_path)).output)
    assert Measured.model_validate(one) == result()
