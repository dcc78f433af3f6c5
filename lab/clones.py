"""A second clone of a checkout, like another operator's: the same hosts, but its own files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from corral.inventory.hosts import load_inventory


def copy(checkout: Path, path: Path, inventory: str, **data: Any) -> None:
    """Make ``path`` such a clone, in place of what is there.

    A lab's inventory finds hosts by the checkout's path, so the clone gets them as plain values.
    + data: host data that differs in this clone
    """
    shutil.rmtree(path, ignore_errors=True)
    # Hidden files are what commands left there.
    shutil.copytree(checkout, path, ignore=shutil.ignore_patterns(".*"))
    done = subprocess.run(
        [sys.executable, "-m", "lab.clones", inventory], cwd=checkout, check=True,
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(checkout)},
    )  # fmt: skip
    hosts = [(name, {**found, **data}) for name, found in json.loads(done.stdout)]
    (path / inventory).write_text(f"servers = {hosts!r}\n")


def main(inventory: Path) -> None:
    """Print the hosts of an inventory with their data; run in the checkout itself."""
    print(json.dumps([[host.name, host.data] for host in load_inventory(inventory)]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
