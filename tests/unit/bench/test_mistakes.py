"""A mistake anywhere keeps nobody from measuring a server that runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import pytest

from corral.bench.result import Result
from corral.bench.run import Benchmark
from corral.errors import CorralError
from lab.odd_host import OddHosts
from tests.unit.bench_samples import result
from tests.unit.cli.test_cli import Corral, corral, edit
from tests.unit.cli.test_mistakes import MISTAKES, hosts

pytestmark = pytest.mark.slow

__all__ = ["corral", "hosts"]


@dataclass
class Measuring:
    """Stands for hosts that measure: what they were asked."""

    asked: list[Benchmark] = field(default_factory=list)

    def run(self, benchmark: Benchmark, *_: object) -> Result:
        # Whatever it needs of the plan is there.
        assert benchmark.commands
        assert benchmark.spec()["release"]["folder"]
        self.asked.append(benchmark)
        return result()

    @property
    def names(self) -> list[str]:
        return [one.name for one in self.asked]


@pytest.fixture
def measuring(hosts: OddHosts, monkeypatch: pytest.MonkeyPatch) -> Measuring:  # noqa: ARG001
    found = Measuring()
    monkeypatch.setattr(import_module("corral.cli.bench"), "run", found.run)
    return found


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_installed_is_measured_and_the_mistake_is_told_beside(
    corral: Corral, measuring: Measuring, mistake: str, tmp_path: Path
) -> None:
    words = ("bench", "node-1/chat", "--results", str(tmp_path / "results"))
    edit(corral.root / "inventories/site.py", "[chat, long]", "[long, chat]")
    assert corral(*words).code == 0
    file, old, new, message = MISTAKES[mistake]
    text = (corral.root / file).read_text()
    (corral.root / file).write_text(text.replace(old, new, 1))
    said = corral(*words)
    assert (said.code, "Traceback" in said.err) == (0, False)
    assert all(word in said.err for word in message), said.err
    assert "node-1 is measured as it is installed there, not as planned" in said.err
    planned, kept = measuring.asked
    assert kept.commands == planned.commands
    assert kept.spec()["release"] == planned.spec()["release"]
    # With the server beside which it is measured, so that one that was begun is joined.
    for found in measuring.asked:
        assert [one["name"] for one in found.spec()["instances"]] == ["long", "chat"]
    assert kept.spec()["instances"][1] == planned.spec()["instances"][1]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("inventories/site.py", '("node-2", {', '("node-2", {"gpu": 1, '),
        ("catalog/profiles/glm-4.7-q2.toml", "slots =", "slotz ="),
    ],
)
def test_a_mistake_of_others_is_none_of_a_host(
    corral: Corral, measuring: Measuring, file: str, old: str, new: str, tmp_path: Path
) -> None:
    edit(corral.root / file, old, new)
    said = corral("bench", "node-1", "--results", str(tmp_path / "results"))
    assert (said.code, said.err) == (0, "")
    assert measuring.names == ["node-1/chat", "node-1/long"]


def test_what_is_not_installed_keeps_no_other_from_being_measured(
    corral: Corral, measuring: Measuring, tmp_path: Path
) -> None:
    new = '{"name": "new", "profile": "tiny-cat", "port": 8003}'
    edit(corral.root / "inventories/site.py", "[chat, long]", f"[{new}, chat, long]")
    said = corral("bench", "node-1", "--results", str(tmp_path / "results"))
    assert said.code == 1
    assert "node-1/new: no generation of it is installed there\n  Next: deploy it" in said.err
    assert measuring.names == ["node-1/chat", "node-1/long"]


def test_a_plan_that_an_earlier_version_kept_is_told(
    corral: Corral, measuring: Measuring, tmp_path: Path
) -> None:
    assert corral("bench", "node-1/chat", "--results", str(tmp_path / "results")).code == 0
    (found,) = measuring.asked
    earlier = found.instance.model_copy(update={"settings": None})
    kept = Benchmark(found.host, found.plan, earlier, "beside", 1)
    with pytest.raises(CorralError, match="does not say what its profile was\n  Next: fix"):
        kept.refuse_unmeasurable()
