"""The uv of this environment, for tests of the helper: it is not fetched again for each."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from uv import find_uv_bin

from tests.unit.helper_modules import helper_module


def use(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Copy it to a folder that the user of builds can enter."""
    program = folder / "uv"
    if not program.exists():
        shutil.copy2(find_uv_bin(), program)
        program.chmod(0o755)

    def ensure(self: object) -> None:
        vars(self)["program"] = program

    monkeypatch.setattr(helper_module("release.uv").Uv, "ensure", ensure)
