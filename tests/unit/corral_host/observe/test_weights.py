"""Weights on a host: who needs them, and removal of those that nobody needs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from corral.host.answers import HostWeights
from tests.unit.helper_modules import helper_module

observing, pruning, roots = (
    helper_module(name)
    for name in ("observe.weights", "activation.prune_weights", "weights.models_root")
)
states, pieces = helper_module("observe.state"), helper_module("swarm.pieces")
HostError = helper_module("system.commands").HostError


class Weights:
    """A host whose servers are files of its records alone."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.state, self.fetching = root / "state", "inactive"
        self.models = self.state / "models"
        self.models.mkdir(parents=True)
        self.paths = {"state": str(self.state), "units": str(root / "units")}
        monkeypatch.setattr(roots, "FSTAB", root / "fstab")
        monkeypatch.setattr(observing, "show", lambda *_: {"ActiveState": "active"})
        monkeypatch.setattr(pruning, "show", lambda *_: {"ActiveState": self.fetching})

    def file(self, name: str, size_bytes: int = 100) -> str:
        path = self.models / "a/b/rev" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size_bytes)
        about = path.stat()
        receipt = {"sha256": name, "size_bytes": size_bytes, "mtime_ns": about.st_mtime_ns}
        Path(f"{path}.receipt.json").write_text(json.dumps(receipt))
        return str(path)

    def keep(self, generation: str, *paths: str, link: str = "", **more: Any) -> Path:
        folder = self.state / "instances/chat/generations" / generation
        folder.mkdir(parents=True)
        plan = {"shards": paths, "model": "small", "quant": generation, **more}
        (folder / "plan.json").write_text(json.dumps(plan))
        if link:
            (self.state / "instances/chat" / link).symlink_to(f"generations/{generation}")
        return folder

    def plan(self, *planned: str) -> dict[str, Any]:
        return {"paths": self.paths, "shards": [{"path": path} for path in planned]}

    def found(self, *planned: str) -> HostWeights:
        answer = json.loads(json.dumps(observing.weights(self.plan(*planned))))
        return TypeAdapter(HostWeights).validate_python(answer)

    def users(self, *planned: str) -> dict[str, tuple[str, ...]]:
        return {Path(one.path).name: one.users for one in self.found(*planned).files}

    def prune(self, *planned: str) -> Any:
        return pruning.prune_weights(self.plan(*planned))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Weights:
    return Weights(tmp_path, monkeypatch)


def test_each_file_says_who_needs_it(host: Weights) -> None:
    names = ("current", "previous", "good", "planned", "nobody")
    files = {name: host.file(name) for name in names}
    for name in names[:3]:
        host.keep(name, files[name], link=name, kept_at=1)
    assert host.users(files["planned"]) == {
        "current": ("chat (current)",),
        "previous": ("chat (previous)",),
        "good": ("chat (good)",),
        "planned": ("planned",),
        "nobody": (),
    }
    found = {Path(one.path).name: one for one in host.found().files}
    assert (found["previous"].model, found["previous"].quant) == ("small", "previous")
    assert found["nobody"].model == ""


def test_pruning_removes_what_nobody_needs_and_nothing_else(host: Weights) -> None:
    needed, planned, nobody = (host.file(n) for n in ("needed", "planned", "nobody"))
    host.keep("one", needed, link="previous", kept_at=1)
    stranger = Path(needed).with_name("of-others.gguf")
    stranger.touch()
    assert host.found(planned).unneeded_bytes == 100
    assert host.prune(planned) == {"removed": [nobody], "freed_bytes": 100}
    assert [Path(path).exists() for path in (needed, planned, nobody)] == [True, True, False]
    assert stranger.exists()
    assert not Path(f"{nobody}.receipt.json").exists()
    assert host.prune(planned) == {"removed": [], "freed_bytes": 0}


def test_digests_of_pieces_go_with_their_file(host: Weights) -> None:
    planned, _ = host.file("planned"), host.file("nobody")
    for name in ("planned", "nobody", "gone-before"):
        shard = {"sha256": name, "size_bytes": 100}
        pieces.keep(shard, pieces.pieces_folder(host.paths), "00" * 20)
    host.prune(planned)
    assert [path.name for path in pieces.pieces_folder(host.paths).iterdir()] == ["planned.json"]


def test_folders_that_are_empty_go_with_their_files(host: Weights) -> None:
    host.file("nobody")
    host.prune()
    assert list(host.models.iterdir()) == []


@pytest.mark.parametrize("served_before", [{}, {"kept_at": 1}])
def test_what_waits_for_its_activation_is_needed(
    host: Weights, served_before: dict[str, int]
) -> None:
    host.keep("old", host.file("old"), link="current", kept_at=1)
    host.keep("next", host.file("next"), link="staged", **served_before)
    assert host.users()["next"] == ("chat (staged)",)
    host.keep("newest", host.file("newest"), kept_at=2)
    assert host.users()["newest"] == ()


def test_an_unfinished_activation_needs_both_ends(host: Weights) -> None:
    host.keep("old", host.file("old"), kept_at=1)
    host.keep("new", host.file("new"), kept_at=1)
    journal = host.state / "instances/chat/activating.json"
    journal.write_text(json.dumps({"from": "old", "to": "new"}))
    assert set(host.users().values()) == {("chat (activating)",)}
    assert host.prune()["removed"] == []


def test_a_file_that_a_process_has_open_is_needed(host: Weights) -> None:
    with Path(host.file("open")).open():
        assert host.users()["open"] == (f"pid {os.getpid()}",)
        (one,) = host.found().files
        assert one.last_used == "now"
        assert host.prune()["removed"] == []
    assert len(host.prune()["removed"]) == 1


def test_two_names_of_one_file_count_once_and_free_nothing_alone(host: Weights) -> None:
    needed, other = Path(host.file("needed")), host.models / "c/d/rev/other"
    other.parent.mkdir(parents=True)
    other.hardlink_to(needed)
    Path(f"{other}.receipt.json").write_text(Path(f"{needed}.receipt.json").read_text())
    found = host.found(str(needed))
    assert (len(found.files), found.size_bytes, found.unneeded_bytes) == (2, 100, 0)
    assert host.found().unneeded_bytes == 100
    assert host.prune(str(needed)) == {"removed": [str(other)], "freed_bytes": 0}
    assert needed.exists()


def test_the_last_use_is_that_of_the_generations_that_had_it(host: Weights) -> None:
    host.keep("old", host.file("old"), kept_at=1)
    host.keep("new", host.file("new"), link="current", kept_at=1)
    reports = host.state / "instances/chat/history"
    reports.mkdir()
    report = {"instance": "chat", "at": "2026-11-20T10:00:00Z", "from": "old", "to": "new"}
    (reports / "1.json").write_text(json.dumps(report))
    found = {Path(one.path).name: one.last_used for one in host.found().files}
    assert found["old"] == "2026-11-20T10:00:00"
    # It runs.
    assert found["new"] > found["old"]


def test_a_plan_that_cannot_be_read_keeps_everything(host: Weights) -> None:
    host.file("any")
    (host.keep("one", link="previous") / "plan.json").write_text("{")
    with pytest.raises(HostError, match="unreadable"):
        host.prune()
    assert states.prunable(host.plan(), None) == 0


@pytest.mark.parametrize("state", ["active", "activating"])
def test_nothing_is_removed_while_weights_arrive(host: Weights, state: str) -> None:
    path, host.fetching = host.file("nobody"), state
    with pytest.raises(HostError, match="are being fetched"):
        host.prune()
    assert Path(path).exists()


def test_without_a_plan_nothing_is_removed(host: Weights) -> None:
    path = host.file("nobody")
    with pytest.raises(HostError, match="unknown what is planned"):
        pruning.prune_weights({"paths": host.paths})
    assert Path(path).exists()


def test_a_disk_that_is_gone_is_told_and_nothing_is_removed(host: Weights) -> None:
    host.file("any")
    (host.state / "models-root").write_text("of another disk")
    found = host.found()
    assert (found.files, found.size_bytes) == ((), 0)
    assert "is not where the weights were put" in found.problem
    assert found.next_step
    with pytest.raises(HostError, match="Nothing was removed"):
        host.prune()
    assert states.prunable(host.plan(), ("gone", "mount it")) == 0


def test_the_state_tells_what_pruning_frees(host: Weights) -> None:
    host.file("nobody")
    assert states.prunable(host.plan(), None) == 100
