"""One lab for all lab tests: three hosts, deployed once, removed at the end.

With pytest-xdist each worker has a lab, in its own copy of the checkout.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import pytest

from lab import requirements
from lab.layout import GATEWAY
from tests.lab import evidence, order
from tests.lab.engine_cache import releases_at_hand
from tests.lab.extra_host import remove_host
from tests.lab.workspace import Workspace

STOPWATCH = order.Stopwatch()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give all workers the same order of tests, as pytest-xdist requires."""
    node.workerinput["seconds"] = order.kept()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if is_worker(config):
        order.longest_first(items, config.workerinput["seconds"])  # type: ignore[attr-defined]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    STOPWATCH.note(report)


def pytest_runtest_setup() -> None:
    evidence.forget()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add evidence to the report of a failure, which is often read on another machine."""
    report = yield
    if report.failed:
        report.sections.append(("commands of the test", evidence.commands()))
        for workspace in vars(item).get("funcargs", {}).values():
            if isinstance(workspace, Workspace):
                for host, text in evidence.journals(workspace.layout, call.start).items():
                    report.sections.append((f"journal of {host}", text))
                break
    return report


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Remove labs of interrupted workers."""
    if not has_workers(session.config):
        return
    for workspace in Workspace.of_workers():
        if workspace.layout.state.exists():
            workspace.corral("lab", "down")
    whole = not session.config.getoption("keyword")
    if whole and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        STOPWATCH.keep()


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is one of pytest-xdist's."""
    return hasattr(config, "workerinput")


def has_workers(config: pytest.Config) -> bool:
    """Whether this process has started workers."""
    return bool(config.getoption("numprocesses", 0)) and not is_worker(config)


@pytest.fixture(scope="session")
def bare_lab() -> Iterator[Workspace]:
    """Three booted hosts; tests/lab/test_rebuild.py deploys one that has no packages yet."""
    missing = requirements.missing()
    assert not missing, f"lab tests need {missing}: run `make setup` as root"
    workspace = Workspace.make()
    workspace.corral("lab", "down")
    up = workspace.corral("lab", "up", "--hosts", "3", "--provisioned")
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
    """The deployed lab, with a gateway in front of its hosts."""
    up = deployed_once.corral("lab", "up", "--gateway")
    assert up.returncode == 0, up.stdout + up.stderr
    try:
        converge(deployed_once)
        yield deployed_once
    finally:
        remove_host(deployed_once, GATEWAY)
        converge(deployed_once)


def converge(lab: Workspace, *arguments: str) -> None:
    done = lab.deploy(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def fleet(deployed_once: Workspace) -> Iterator[Workspace]:
    """A converged lab; after each test the plain deploy repairs what the test broke."""
    yield deployed_once
    converge(deployed_once)
