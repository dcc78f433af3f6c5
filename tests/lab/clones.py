"""A second clone of the project, as another operator has one: the same hosts, its own files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from corral.store.api_keys import keys_in
from tests.lab.workspace import Workspace

INVENTORY = "inventories/lab.py"
_HOSTS = (
    "import json; from pathlib import Path; from corral.inventory import load_inventory;"
    f"print(json.dumps([[h.name, h.data] for h in load_inventory(Path('{INVENTORY}'))]))"
)


def clone(lab: Workspace, folder: Path, **data: Any) -> Workspace:
    """The same hosts with ``data`` changed; who is up stands in its inventory as plain values."""
    path = folder / "clone"
    shutil.copytree(lab.path, path)
    done = subprocess.run(
        [sys.executable, "-c", _HOSTS], cwd=lab.path, check=True, capture_output=True, text=True,
        env={"PYTHONPATH": str(lab.path), "HOME": str(Path.home())},
    )  # fmt: skip
    hosts = [(name, {**found, **data}) for name, found in json.loads(done.stdout)]
    (path / INVENTORY).write_text(f"servers = {hosts!r}\n")
    return Workspace(path)


def stored(store: Path) -> dict[str, list[str]]:
    """HOST/NAME -> the keys of a store, those that were set aside left out."""
    files = [path for path in store.glob("*/*") if path.is_file()]
    return {f"{path.parent.name}/{path.name}": keys_in(path.read_text()) for path in files}
