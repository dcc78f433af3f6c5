"""A second clone has the same hosts, as plain values, and what it has otherwise."""

from __future__ import annotations

from pathlib import Path

from corral.inventory.hosts import load_inventory
from lab import clones
from tests.samples import ROOT

INVENTORY = "lab/chaos/inventory.py"


def test_a_clone_has_the_same_hosts_and_data_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "clone"
    (path / "from-before").mkdir(parents=True)
    clones.copy(ROOT, path, INVENTORY, keys_folder="/elsewhere")
    assert not (path / "from-before").exists()
    ours, theirs = load_inventory(ROOT / INVENTORY), load_inventory(path / INVENTORY)
    assert ours
    wanted = [(host.name, {**host.data, "keys_folder": "/elsewhere"}) for host in ours]
    assert [(host.name, host.data) for host in theirs] == wanted
