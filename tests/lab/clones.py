"""A second clone of the project, like another operator's, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from corral.store.api_keys import keys_in
from lab import clones
from tests.lab.workspace import Workspace

INVENTORY = "inventories/lab.py"


def clone(lab: Workspace, folder: Path, **data: Any) -> Workspace:
    """A clone with the same hosts as plain values in its inventory, and ``data`` changed."""
    path = folder / "clone"
    clones.copy(lab.path, path, INVENTORY, **data)
    return Workspace(path)


def stored(store: Path) -> dict[str, list[str]]:
    """HOST/NAME -> the keys of a store, without replaced ones."""
    files = [path for path in store.glob("*/*") if path.is_file()]
    return {f"{path.parent.name}/{path.name}": keys_in(path.read_text()) for path in files}
