"""Results: read from what the real programs print, kept, found again."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral.bench.result import Measure, read_outputs
from corral.bench.store import Pending, ResultStore
from corral.errors import CorralError
from corral.paths import default_results_folder
from tests.samples import ROOT
from tests.unit.bench_samples import result

PRINTED = ROOT / "tests" / "data" / "bench"


def printed(program: str) -> list[str]:
    """Lines of a real run with the tiny model."""
    return (PRINTED / f"{program}.jsonl").read_text().splitlines()


def read(program: str, *runs: list[str]) -> dict[tuple[str, int, int], Measure]:
    kind = "ik_llama.cpp" if "sweep" in program else "llama.cpp"
    measures = read_outputs(kind, [[f"/x/{program}"]], [runs], where="node-1/chat")
    return {m.case: m for m in measures}


def test_llama_bench_has_its_samples_in_a_row() -> None:
    found = read("llama-bench", printed("llama-bench"))
    assert [case[1] for case in found if case[0] == "prompt"] == [0, 512, 1024, 1536]
    assert [case[1] for case in found if case[0] == "generation"] == [0, 512, 1024, 1536]
    assert {(m.test, m.tokens) for m in found.values()} == {("prompt", 512), ("generation", 128)}
    assert {len(m.samples) for m in found.values()} == {2}


def test_slots_together_generate_after_their_prompts() -> None:
    found = read("llama-batched-bench", printed("llama-batched-bench"))
    assert set(found) == {("prompt", 0, 2), ("generation", 512, 2)}
    assert {len(m.samples) for m in found.values()} == {2}


def test_repeated_sweeps_give_a_sample_each() -> None:
    lines = printed("llama-sweep-bench")
    runs = [lines[n : n + 4] for n in (0, 4, 8)]
    found = read("llama-sweep-bench", *runs)
    assert [case[1] for case in found if case[0] == "generation"] == [0, 256, 512, 768]
    first = found["prompt", 0, 1]
    assert (first.tokens, len(first.samples)) == (256, 3)
    assert first.samples[0] == pytest.approx(17930.9375)


@pytest.mark.parametrize("line", ["{", '{"n_prompt": 512}', "[]"])
def test_lines_that_cannot_be_read_are_one_message(line: str) -> None:
    with pytest.raises(CorralError, match="node-1/chat: the benchmark's output cannot be read"):
        read("llama-bench", [line])


def test_the_newest_result_is_found_by_name_and_by_release(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    old = result(began_at="2026-11-20T00:00:00Z", release="aaaa-cpu")
    new = result(began_at="2026-11-21T00:00:00Z", release="bbbb-cpu")
    path = store.save(old)
    store.save(new)
    store.save(result(instance="other"))
    assert path == tmp_path / "node-1" / "chat" / "2026-11-20T000000Z.json"
    assert store.find("node-1/chat") == new
    assert store.find("node-1/chat@aaaa") == old
    assert store.find(str(path)) == old
    assert [one.instance for one in store.results()] == ["chat", "chat", "other"]


@pytest.mark.parametrize(
    ("reference", "what"),
    [
        ("node-1/chta", 'no results are kept (did you mean "node-1/chat"?)'),
        ("node-1", "no results are kept"),
        ("node-1/chat@ffff", "no result of release ffff (known: 0c1e57098bba-cpu-cd300df0)"),
        ("absent.json", "cannot be read: No such file"),
    ],
)
def test_an_unknown_one_is_told(tmp_path: Path, reference: str, what: str) -> None:
    store = ResultStore(tmp_path)
    store.save(result())
    with pytest.raises(CorralError) as error:
        store.find(reference)
    assert what in str(error.value)


def test_a_damaged_result_is_told_with_its_file(tmp_path: Path) -> None:
    path = ResultStore(tmp_path).save(result())
    path.write_text(path.read_text()[:100])
    with pytest.raises(CorralError, match=r"T160618Z.json: is no result of `corral bench`"):
        list(ResultStore(tmp_path).results())


def test_a_result_that_cannot_be_written_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    in_the_way = tmp_path / "node-1" / "chat" / "2026-11-21T160618Z.json"
    in_the_way.mkdir(parents=True)
    with pytest.raises(CorralError, match="cannot be written.*\n  Next: free disk space"):
        ResultStore(tmp_path).save(result())
    assert list(in_the_way.parent.iterdir()) == [in_the_way]


def test_what_is_waited_for_is_no_result(tmp_path: Path) -> None:
    store, waited = ResultStore(tmp_path), Pending(spec_sha256="x", before=None)
    assert store.pending("node-1", "chat") is None
    store.expect("node-1", "chat", waited)
    assert store.pending("node-1", "chat") == waited
    assert list(store.results()) == []
    store.forget("node-1", "chat")
    assert store.pending("node-1", "chat") is None


def test_results_follow_the_data_folder_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_results_folder() == Path("/data/corral/bench")
    monkeypatch.setenv("XDG_DATA_HOME", "not/absolute")
    assert default_results_folder() == Path.home() / ".local/share/corral/bench"
