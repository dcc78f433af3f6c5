"""A fleet of fake hosts, in this checkout, with a store of keys and archives of its own."""

from __future__ import annotations

from pathlib import Path

import gevent  # type: ignore[import-untyped]
import pytest

from tests.operations.fleet import Fleet
from tests.samples import EXAMPLES

# pyinfra's command line patches waiting for gevent, also when a worker of pytest-xdist waits for
# its next file from another thread: a hub without events of its own would then raise an error.
_AWAKE = gevent.get_hub().loop.timer(1, repeat=1)
_AWAKE.start(lambda: None)


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    monkeypatch.chdir(EXAMPLES)
    return Fleet(tmp_path / "keys", tmp_path / "archives")
