"""What tests of checks share: how the server on trial behaves."""

from __future__ import annotations

import pytest

from tests.unit.trial_server import Behaviour


@pytest.fixture
def does() -> Behaviour:
    return Behaviour()
