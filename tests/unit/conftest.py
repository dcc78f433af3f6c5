"""The stand-in hub, prepared once."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from lab import hub
from tests.once import parsed_and_compiled_once
from tests.unit.helper_modules import helper_module
from tests.unit.release_samples import Engine
from tests.unit.running_hub import RunningHub

# The same examples in each run: a test that fails after a change fails because of that change.
# `pytest --hypothesis-profile=random` tries others. How long one takes is the machine's business.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("random", deadline=None)
settings.load_profile("same")


@pytest.fixture(scope="session", autouse=True)
def once() -> Iterator[None]:
    """Catalogs and templates are read a thousand times, and nearly always the same ones."""
    with pytest.MonkeyPatch.context() as patch:
        parsed_and_compiled_once(patch)
        yield


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
def engine() -> Iterator[Engine]:
    """Compiled once for all tests that want the same one."""
    with public_folder() as folder:
        yield Engine(folder / "engine")


@pytest.fixture(scope="module")
def every_commit_is_there() -> Iterator[None]:
    """The git server of these tests is asked nothing (tests/unit/sources/test_git.py asks one)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("corral.sources.git._require_commit", lambda *_: None)
        yield


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """pytest's own; where an engine runs or is built, one that other users are let into as well."""
    if not {"engine", "public"} & set(request.fixturenames):
        yield tmp_path
        return
    with public_folder() as folder:
        yield folder


@pytest.fixture(autouse=True)
def own_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who owns nothing here is nobody in a lab's host, whose processes this machine sees.

    A test that ends all processes of such a user would end those of a deploy over there.
    """
    first = 40000 + os.getpid() % 1000 * 14
    monkeypatch.setattr(helper_module("system.unprivileged"), "USERS", range(first, first + 14))


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that builds: other users are let into its ``tmp_path``.

    Its user of builds is none that a real build here, or in a lab's host, would have: both see each
    other's processes, and end all of that user's.
    """
    user = 62000 + os.getpid() % 3000
    for name in ("system.unprivileged", "release.build_user"):
        monkeypatch.setattr(helper_module(name), "BUILD_USER", user)


@contextlib.contextmanager
def public_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="corral-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def pytest_collection_finish() -> None:
    """pyinfra's command line makes threads, files and pipes of the whole process gevent's."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey and monkey.is_module_patched("threading"):
        pytest.exit("run tests/unit alone: gevent has patched threads and pipes", returncode=4)
