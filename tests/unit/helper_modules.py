"""Modules of the host helper, imported as they are on a host."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from tests.samples import ROOT


def helper_module(name: str) -> Any:
    """``files/corral_host/<name>.py``."""
    folder = str(ROOT / "files")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(f"corral_host.{name}")


def program(folder: Path, name: str, script: str) -> None:
    """A program for a PATH of the test's own."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
