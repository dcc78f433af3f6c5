"""A fleet of fake hosts, in this checkout, with a store of keys and archives of its own."""

from __future__ import annotations

from pathlib import Path

import gevent  # type: ignore[import-untyped]
import pytest

from tests.operations.fleet import Fleet
from tests.samples import EXAMPLES

# pyinfra's command line makes waiting gevent's, also that of a worker of pytest-xdist for its next
# file, which another thread brings: a hub without anything of its own says that nobody ever will.
_AWAKE = gevent.get_hub().loop.timer(1, repeat=1)
_AWAKE.start(lambda: None)


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    monkeypatch.chdir(EXAMPLES)
    return Fleet(tmp_path / "keys", tmp_path / "archives")
