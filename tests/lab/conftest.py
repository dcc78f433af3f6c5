"""One lab for all lab tests: three hosts, deployed once, put away at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import requirements
from tests.lab.workspace import Workspace


@pytest.fixture(scope="session")
def bare_lab() -> Iterator[Workspace]:
    """Three booted hosts, as they come."""
    missing = requirements.missing()
    assert not missing, f"lab tests need {missing}: run `make setup` as root"
    workspace = Workspace.make()
    workspace.corral("lab", "down")
    up = workspace.corral("lab", "up", "--hosts", "3")
    assert up.returncode == 0, up.stdout + up.stderr
    yield workspace
    down = workspace.corral("lab", "down")
    assert down.returncode == 0, down.stdout + down.stderr


@pytest.fixture(scope="session")
def deployed_once(bare_lab: Workspace) -> Workspace:
    """The lab after its first deploy."""
    first = bare_lab.deploy()
    assert first.returncode == 0, first.stdout + first.stderr
    return bare_lab


@pytest.fixture
def fleet(deployed_once: Workspace) -> Iterator[Workspace]:
    """A converged lab; whatever a test broke is mended after it by the plain command."""
    yield deployed_once
    mended = deployed_once.deploy()
    assert mended.returncode == 0, mended.stdout + mended.stderr
