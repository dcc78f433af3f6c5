"""A fleet of fake hosts, in this checkout, with a store of keys and archives of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.operations.fleet import Fleet
from tests.samples import EXAMPLES


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    monkeypatch.chdir(EXAMPLES)
    return Fleet(tmp_path / "keys", tmp_path / "archives")
