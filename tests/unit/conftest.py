"""The stand-in hub, prepared once."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import hub
from tests.unit.release_samples import Engine
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


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Compiled once for all tests that want the same one."""
    return Engine(tmp_path_factory.mktemp("engine"))


def pytest_collection_finish() -> None:
    """pyinfra's command line makes threads, files and pipes of the whole process gevent's."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey and monkey.is_module_patched("threading"):
        pytest.exit("run tests/unit alone: gevent has patched threads and pipes", returncode=4)
