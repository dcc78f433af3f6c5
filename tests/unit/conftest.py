"""The stand-in hub, prepared once."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import hub
from tests.unit.running_hub import RunningHub


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hub")
    hub.prepare(root)
    return root


@pytest.fixture
def running(prepared: Path) -> Iterator[RunningHub]:
    log = io.StringIO()
    with hub.running(prepared, log=log) as url:
        yield RunningHub(prepared, url, log)
