"""Repositories and references that are options or commands; servers that say more than lines."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from corral.catalog.entries import Engine
from corral.errors import CorralError
from corral.inventory.hosts import parse_host
from corral.lock.lock_file import Lock
from corral.lock.resolve import _resolve_engine, resolve
from corral.names import GIT_PROTOCOLS
from tests.samples import catalog
from tests.unit.helper_modules import helper_module

sources = helper_module("release.sources")

BAD_URLS = [
    "", "-u/bin/sh", "--upload-pack=x", "ext::sh -c id", "EXT::x", "fd::7", "ftp://h/x.git",
    "http://h/a\nb", "http://h/\x1b[2J",
]  # fmt: skip
GOOD_URLS = [
    "https://github.com/ggml-org/llama.cpp", "http://h:8080/x.git", "git://10.0.0.1/x.git",
    "ssh://git@h/x.git", "file:///srv/x.git", "/srv/x.git", "git@github.com:a/b.git",
]  # fmt: skip
BAD_REFERENCES = ["", "-x", "b*", "b?", "a b", "a..b", "a\tb", "a^{}", "a:b", "../x", "a/", "@{1}"]


def engine(**changes: Any) -> Engine:
    return Engine.model_validate({**catalog().engines["llama.cpp"].model_dump(), **changes})


@pytest.mark.parametrize("url", BAD_URLS)
def test_an_address_that_is_an_option_or_a_command_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="repository"):
        engine(repository=url)
    with pytest.raises(CorralError, match="engine_sources"):
        parse_host("h", {"engine_sources": {"llama.cpp": url}})


@pytest.mark.parametrize("url", GOOD_URLS)
def test_ordinary_addresses_are_taken(url: str) -> None:
    assert engine(repository=url).repository == url


@pytest.mark.parametrize("reference", BAD_REFERENCES)
def test_a_reference_that_is_an_option_or_a_pattern_is_refused(reference: str) -> None:
    with pytest.raises(ValueError, match="commit"):
        engine(commit=reference)


@pytest.mark.parametrize("reference", ["b4567", "v1.2", "feature/x", "user@x", "master"])
def test_ordinary_references_are_taken(reference: str) -> None:
    assert engine(commit=reference).commit == reference


@pytest.mark.parametrize("url", ["ftp://h", "http://", "http://h/a b", "http://h/x?y", "-x"])
def test_a_hub_is_an_address_by_http(url: str) -> None:
    with pytest.raises(CorralError, match="hub_url"):
        parse_host("h", {"hub_url": url})


def said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: bytes) -> None:
    """A git that says ``text``, whatever it is asked."""
    (tmp_path / "said").write_bytes(text)
    git = tmp_path / "git"
    git.write_text(f"#!/bin/sh\ncat {tmp_path}/said\nenv >{tmp_path}/env\n")
    git.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    "text", [b"warning: no tab here\n", b"\xff\xfe\tx\n", b"x\trefs/tags/b1\n", b"\n\t\n"]
)
def test_a_server_that_says_something_else_is_named(
    text: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said(monkeypatch, tmp_path, text)
    with pytest.raises(CorralError, match="catalog/engines/llama.cpp.toml: commit"):
        _resolve_engine("llama.cpp", engine(commit="b1"))


def test_a_line_without_a_tab_beside_the_answer_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said(monkeypatch, tmp_path, b"warning: x\n" + b"a" * 40 + b"\trefs/tags/b1\n")
    assert _resolve_engine("llama.cpp", engine(commit="b1")).commit == "a" * 40
    allowed = f"GIT_ALLOW_PROTOCOL={':'.join(GIT_PROTOCOLS)}\n"
    assert allowed in (tmp_path / "env").read_text()


def test_a_host_has_git_run_no_command() -> None:
    assert sources.ENVIRONMENT["GIT_ALLOW_PROTOCOL"] == ":".join(GIT_PROTOCOLS)
    done = subprocess.run(
        ["git", "ls-remote", "--", "ext::sh -c id"],
        env=sources.ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "not allowed" in done.stderr


def test_nothing_is_asked_of_git_for_an_engine_that_nobody_runs() -> None:
    known = catalog().model_copy(update={"engines": {"llama.cpp": engine(commit="a" * 40)}})
    assert resolve(Lock(), known, []).engines == {}


def test_a_pinned_commit_is_asked_for_as_a_build_will_ask(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said(monkeypatch, tmp_path, b"")
    assert _resolve_engine("llama.cpp", engine(commit="a" * 40)).commit == "a" * 40
    told = (tmp_path / "env").read_text()
    assert f"GIT_ALLOW_PROTOCOL={':'.join(GIT_PROTOCOLS)}\n" in told
    assert "GIT_TERMINAL_PROMPT=0\n" in told
