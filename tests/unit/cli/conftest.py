"""What tests of `corral fit` share: a hub with real headers, and a checkout with its lock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.fit_project import Fit, ModelHub, fit_in, serving_models


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelHub]:
    with serving_models(tmp_path_factory.mktemp("models")) as running:
        yield running


@pytest.fixture
def fit(
    models: ModelHub,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Fit:
    monkeypatch.setenv("XDG_CACHE_HOME", str(models.kept))
    return fit_in(tmp_path, models.lock, models.running.url, capsys, monkeypatch)
