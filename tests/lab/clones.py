"""A second clone of the project, as another operator has one, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from corral.store.api_keys import keys_in
from lab import clones
from tests.lab.workspace import Workspace

INVENTORY = "inventories/lab.py"


def clone(lab: Workspace, folder: Path, **data: Any) -> Workspace:
    """The same hosts with ``data`` changed; who is up stands in its inventory as plain values."""
    path = folder / "clone"
    clones.copy(lab.path, path, INVENTORY, **data)
    return Workspace(path)


def stored(store: Path) -> dict[str, list[str]]:
    """HOST/NAME -> the keys of a store, those that were set aside left out."""
    files = [path for path in store.glob("*/*") if path.is_file()]
    return {f"{path.parent.name}/{path.name}": keys_in(path.read_text()) for path in files}
