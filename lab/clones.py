"""A second clone of a checkout, as another operator has one: the same hosts, its own files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

_HOSTS = (
    "import json, sys; from pathlib import Path; from corral.inventory import load_inventory;"
    "print(json.dumps([[h.name, h.data] for h in load_inventory(Path(sys.argv[1]))]))"
)


def copy(checkout: Path, path: Path, inventory: str, **data: Any) -> None:
    """Make ``path`` such a clone, in place of what is there.

    A lab's inventory asks who is up, by its own path: here that stands as plain values.
    + data: host data that this clone has otherwise
    """
    shutil.rmtree(path, ignore_errors=True)
    # Hidden files are what commands left there.
    shutil.copytree(checkout, path, ignore=shutil.ignore_patterns(".*"))
    done = subprocess.run(
        [sys.executable, "-c", _HOSTS, inventory], cwd=checkout, check=True, capture_output=True,
        text=True, env={**os.environ, "PYTHONPATH": str(checkout)},
    )  # fmt: skip
    hosts = [(name, {**found, **data}) for name, found in json.loads(done.stdout)]
    (path / inventory).write_text(f"servers = {hosts!r}\n")
