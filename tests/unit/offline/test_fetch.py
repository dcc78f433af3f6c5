"""Weights arrive whole, also over a link that is cut, and nothing else is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.errors import CorralError
from corral.offline import fetch as module
from corral.offline.fetch import Source, fetch
from corral.offline.folder import BundleFolder
from tests.unit.ranged_server import RangedServer, Served, serving

NAME = "weights/acme/Tiny/ab/x.gguf"
CONTENT = bytes(range(256)) * 4096


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[RangedServer]:
    monkeypatch.setattr(module, "_PAUSE_SECONDS", 0)
    with serving() as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[BundleFolder]:
    with BundleFolder.opened(tmp_path / "disk") as found:
        yield found


def add(server: RangedServer, **faults: object) -> Source:
    size = len(CONTENT)
    server.files["x"] = Served(CONTENT, total_bytes=size, **faults)  # type: ignore[arg-type]
    digest = hashlib.sha256(CONTENT).hexdigest()
    return Source(url=f"{server.url}/x", sha256=digest, size_bytes=size)


def no_progress(_: int) -> None:
    pass


def test_what_a_killed_run_had_is_not_fetched_again(
    server: RangedServer, folder: BundleFolder
) -> None:
    source = add(server)
    folder.partial(NAME).write_bytes(CONTENT[:100_000])
    arrived: list[int] = []
    fetch(folder, NAME, source, arrived.append)
    assert (folder.path / NAME).read_bytes() == CONTENT
    assert server.requests == ["x bytes=100000-"]
    assert arrived[-1] == len(CONTENT)
    fetch(folder, NAME, source, no_progress)
    assert len(server.requests) == 1


def test_a_link_that_is_cut_again_and_again_is_resumed(
    server: RangedServer, folder: BundleFolder
) -> None:
    source = add(server, most_bytes=300_000)
    fetch(folder, NAME, source, no_progress)
    assert (folder.path / NAME).read_bytes() == CONTENT
    assert len(server.requests) == 4


def test_a_server_without_ranges_is_asked_for_all_of_it(
    server: RangedServer, folder: BundleFolder
) -> None:
    source = add(server, ranges=False)
    folder.partial(NAME).write_bytes(b"other bytes")
    fetch(folder, NAME, source, no_progress)
    assert (folder.path / NAME).read_bytes() == CONTENT


def test_other_bytes_than_locked_are_not_kept(server: RangedServer, folder: BundleFolder) -> None:
    source = add(server).model_copy(update={"sha256": "0" * 64})
    with pytest.raises(CorralError, match="is wanted"):
        fetch(folder, NAME, source, no_progress)
    assert not (folder.path / NAME).exists()
    assert not folder.partial(NAME).exists()


def test_a_hub_that_sends_without_end_is_stopped(
    server: RangedServer, folder: BundleFolder
) -> None:
    source = add(server, extra_bytes=400_000_000)
    with pytest.raises(CorralError, match="more than the 1048576 bytes that are locked"):
        fetch(folder, NAME, source, no_progress)
    assert not folder.partial(NAME).exists()
    assert server.sent_bytes < 200_000_000


@pytest.mark.parametrize("status", [403, 404])
def test_a_refusal_is_not_asked_again(
    server: RangedServer, folder: BundleFolder, status: int
) -> None:
    source = add(server, status=status)
    with pytest.raises(CorralError, match=f"answers {status}"):
        fetch(folder, NAME, source, no_progress)
    assert len(server.requests) == 1


def test_a_faulty_hub_is_asked_some_times_and_what_came_is_kept(
    server: RangedServer, folder: BundleFolder
) -> None:
    source = add(server, status=503)
    folder.partial(NAME).write_bytes(CONTENT[:5])
    with pytest.raises(CorralError, match="what came before is kept"):
        fetch(folder, NAME, source, no_progress)
    assert len(server.requests) == 5
    assert folder.partial(NAME).read_bytes() == CONTENT[:5]
