"""Every route of the pinned engines is deliberately open or closed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from corral.engines.llama.routes import CLOSED, OPEN
from lab import engine_source
from lab.engine_source import SOURCES
from lab.layout import Layout
from lab.source_tools import git
from tests.samples import ROOT

# Where each engine registers its routes, and how: ctx_http.get("/x", svr->Post ("/x",
# svr->Get(params.api_prefix + "/".
FOLDERS = {"llama.cpp": "tools/server", "lab-ik_llama.cpp": "examples/server"}
REGISTERED = re.compile(
    r'\b(?:ctx_http\.|(?:svr|srv)->)(\w+)\s*\(\s*(?:params\.api_prefix \+ )?"(/[^"]*)"'
)
# The web page of llama.cpp, switched off by Corral's units, and files of ik_llama.cpp's.
PAGE = {("GET", "/index.html"), ("GET", "/sw.js"), ("SET_MOUNT_POINT", "/")}
METHODS = {"del": "DELETE"}
DECIDED = {*OPEN, *CLOSED}


@pytest.fixture(scope="module")
def sources() -> Path:
    """The folder of the engines' repositories."""
    folder = Layout.of(ROOT).engine_source
    engine_source.ensure(folder)
    return folder


def registered(text: str) -> set[tuple[str, str]]:
    """Method and path of each route that a source registers."""
    found = REGISTERED.findall(text)
    return {(METHODS.get(name, name).upper(), path) for name, path in found} - PAGE


def routes(sources: Path, engine: str) -> set[tuple[str, str]]:
    """All routes of an engine at its pin."""
    repository, where = sources / f"{engine}.git", f"{SOURCES[engine].commit}:{FOLDERS[engine]}"
    names = git(repository, "ls-tree", "--name-only", where).decode().split()
    texts = [
        git(repository, "cat-file", "blob", f"{where}/{name}").decode()
        for name in names
        if name.endswith((".cpp", ".h"))
    ]
    return registered("\n".join(texts))


@pytest.mark.parametrize("engine", FOLDERS)
def test_each_route_of_an_engine_is_decided(sources: Path, engine: str) -> None:
    found = routes(sources, engine)
    assert len(found) > 30, "the sources register them as they did"
    new = sorted(found - DECIDED)
    assert not new, "closed to clients until corral/engines/llama/routes.py says open, or why not"


def test_no_route_is_decided_that_no_engine_has(sources: Path) -> None:
    assert set.union(*(routes(sources, engine) for engine in FOLDERS)) == DECIDED


def test_no_route_is_both_open_and_closed() -> None:
    assert not set(OPEN) & set(CLOSED)
    assert len(OPEN) == len(set(OPEN))
    assert all(CLOSED.values())


def test_a_route_that_upstream_adds_is_seen() -> None:
    added = 'ctx_http.put ("/v1/memories",  ex_wrapper(x));\n svr->Delete("/v1/all", y);'
    assert registered(added) == {("PUT", "/v1/memories"), ("DELETE", "/v1/all")}
    assert not registered(added) & DECIDED
