"""One lab for all lab tests: three hosts, deployed once, put away at the end.

With pytest-xdist one lab a worker, each in a copy of the checkout of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import requirements
from lab.layout import GATEWAY
from tests.lab.engine_cache import releases_at_hand
from tests.lab.extra_host import remove_host
from tests.lab.workspace import Workspace


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Workers take the long files first, so that none has one left when the others have ended."""
    if is_worker(config):
        items.sort(key=lambda item: (-item.path.stat().st_size, str(item.path)))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Labs of workers that were interrupted do not stay."""
    if not is_worker(session.config):
        for workspace in Workspace.of_workers():
            if workspace.layout.state.exists():
                workspace.corral("lab", "down")


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is one of pytest-xdist's."""
    return hasattr(config, "workerinput")


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
    with releases_at_hand(bare_lab):
        converge(bare_lab)
    return bare_lab


@pytest.fixture(scope="module")
def with_gateway(deployed_once: Workspace) -> Iterator[Workspace]:
    """The lab with a gateway in front of its hosts, deployed."""
    up = deployed_once.corral("lab", "up", "--gateway")
    assert up.returncode == 0, up.stdout + up.stderr
    try:
        converge(deployed_once)
        yield deployed_once
    finally:
        remove_host(deployed_once, GATEWAY)
        converge(deployed_once)


def converge(lab: Workspace) -> None:
    done = lab.deploy()
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def fleet(deployed_once: Workspace) -> Iterator[Workspace]:
    """A converged lab; whatever a test broke is mended after it by the plain command."""
    yield deployed_once
    converge(deployed_once)
