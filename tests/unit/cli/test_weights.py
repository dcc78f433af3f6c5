"""`corral weights`: tables, sums, and pruning with a question."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from corral.cli import weights
from corral.inventory.hosts import read_inventory
from corral.planning.load import load_planner
from lab.odd_host import Answer, OddHosts
from tests.samples import GIB, ROOT
from tests.unit.cli.test_cli import Corral, assert_one_message, corral, edit
from tests.unit.odd_fleet import odd_hosts

__all__ = ["corral"]

pytestmark = pytest.mark.slow

ROW = {"model": "small", "quant": "Q8_0", "sha256": "a", "proved": True, "last_used": "now"}
FOUND: dict[str, Any] = {
    "files": [
        {**ROW, "path": "/m/a/b/1/x", "size_bytes": 2 * GIB, "users": ["chat (current)"],
         "file": "1"},
        {**ROW, "path": "/m/a/b/0/x", "size_bytes": GIB, "users": [], "file": "2", "quant": "Q4"},
    ],
    "size_bytes": 3 * GIB, "unneeded_bytes": GIB, "partial_bytes": 0,
    "disk": {"folder": "/m", "total_bytes": 10 * GIB, "free_bytes": 4 * GIB},
}  # fmt: skip


class Node:
    """node-1 with these weights."""

    def __init__(self, corral: Corral, hosts: OddHosts) -> None:
        (self.host, _) = read_inventory(corral.root / "inventories/site.py").hosts
        load_planner(corral.root)
        self.hosts = hosts
        self.says(FOUND)

    def says(self, found: dict[str, Any]) -> None:
        pruned = {"removed": ["/m/a/b/0/x"], "freed_bytes": GIB}
        said = {" weights": found, " prune-weights": pruned}
        answers = {word: Answer(json.dumps(one).encode()) for word, one in said.items()}
        self.hosts.says(self.host.name, answers)

    @property
    def pruned(self) -> bool:
        return any(" prune-weights" in asked for asked in self.hosts.asked(self.host.name))


@pytest.fixture
def node(corral: Corral, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    (corral.root / "files").symlink_to(ROOT / "files")
    monkeypatch.chdir(corral.root)
    return Node(corral, odd_hosts(tmp_path / "hosts", monkeypatch))


@pytest.mark.usefixtures("node")
def test_a_host_shows_each_set_of_files_the_sums_and_the_disk(corral: Corral) -> None:
    said = corral("weights", "node-1")
    assert said.code == 0
    _, *rows, sums = said.out.splitlines()
    (needed,) = (row for row in rows if "Q8_0" in row)
    assert "2.0 GiB" in needed
    assert "chat (current)" in needed
    (unneeded,) = (row for row in rows if "Q4" in row)
    assert "nobody" in unneeded
    assert sums == (
        "node-1: 3.0 GiB of weights, 1.0 GiB of them that nobody needs; "
        "/m has 4.0 GiB free of 10.0 GiB"
    )


@pytest.mark.usefixtures("node")
def test_json_has_every_file(corral: Corral) -> None:
    found = json.loads(corral("weights", "node-1", "--json").out)["node-1"]
    assert [one["users"] for one in found["files"]] == [["chat (current)"], []]
    assert found["plan_known"]


def test_pruning_asks_and_a_dry_run_changes_nothing(corral: Corral, node: Node) -> None:
    said = corral("weights", "prune", "node-1", "--dry-run")
    assert said.code == 0
    assert "/m/a/b/0/x (1.0 GiB)" in said.out
    assert "/m/a/b/1/x" not in said.out
    said = corral("weights", "prune", "node-1")
    assert said.code == 1
    assert "`corral weights prune node-1 -y`" in said.err
    assert not node.pruned
    said = corral("weights", "prune", "node-1", "-y")
    assert said.code == 0
    assert said.out.endswith("node-1: removed 1 file, 1.0 GiB are free again\n")
    assert node.pruned


def test_without_a_plan_weights_are_shown_and_none_is_removed(corral: Corral, node: Node) -> None:
    edit(corral.root / "corral.lock", "{", "<<<<<<< HEAD\n{")
    said = corral("weights", "node-1")
    assert said.code == 1
    assert "chat (current)" in said.out
    assert "what it plans is unknown" in said.err
    said = corral("weights", "prune", "node-1", "-y")
    assert said.code == 1
    assert "nothing was removed" in said.err
    assert not node.pruned


def test_a_disk_that_is_gone_is_told(corral: Corral, node: Node) -> None:
    node.says({**FOUND, "files": [], "problem": "/m is not mounted", "next_step": "mount /m"})
    assert "/m is not mounted" in corral("weights", "node-1").err
    assert_one_message(corral("weights", "prune", "node-1", "-y"), "/m is not mounted", "mount /m")


@pytest.mark.usefixtures("node")
def test_weights_belong_to_a_host(corral: Corral) -> None:
    said = corral("weights", "node-1/chat")
    assert said.code == 1
    assert "name the host node-1" in said.err


def test_all_files_of_the_lock_are_looked_for(corral: Corral, node: Node) -> None:
    planner = load_planner(corral.root)
    files = weights.locked_files(planner.lock, planner.plan_host(node.host))
    places = {one["path"]: one["planned"] for one in files}
    assert set(places.values()) == {True, False}
    assert len(places) == sum(
        len(files) for model in planner.lock.models.values() for files in model.quants.values()
    )
    assert all(path.startswith("/var/lib/corral/models/") for path in places)


def test_on_a_host_that_was_never_deployed_files_are_adopted_too(
    corral: Corral, node: Node
) -> None:
    adopted = {"adopted": [{"path": "/m/x", "source": "/srv/llm/flat.gguf"}], "files": 2,
               "missing": ["/m/y"]}  # fmt: skip
    node.hosts.says(node.host.name, {
        " adopt": Answer(json.dumps(adopted).encode()), "": Answer(code=1, err=b"nothing here"),
    })  # fmt: skip
    said = corral("weights", "adopt", "node-1", "/srv/llm")
    assert said.code == 0
    assert "/srv/llm/flat.gguf is now /m/x" in said.out
    assert "/m/y is planned and still missing" in said.out
