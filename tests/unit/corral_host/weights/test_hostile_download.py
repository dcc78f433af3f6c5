"""Downloads from a hub that sends too much, nothing, or invalid answers; and their leftovers."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from lab.faults import Rule, faults
from tests.unit.helper_modules import helper_module
from tests.unit.plain_server import Seen, serving
from tests.unit.running_hub import RESOLVE, WHOLE, RunningHub

pytestmark = pytest.mark.slow

fetching, hub_client = helper_module("weights.fetch"), helper_module("weights.hub")
HostError = helper_module("system.commands").HostError

BYTES = b"weights" * 1000
NEEDS_ARIA2 = pytest.mark.skipif(not shutil.which("aria2c"), reason="no aria2 here")


def shard(state: Path, url: str = "http://127.0.0.1:1/x", **changed: Any) -> dict[str, Any]:
    return {
        "url": url, "revision": "c" * 40, "path": f"{state}/models/a/b/{'c' * 40}/x.gguf",
        "sha256": hashlib.sha256(BYTES).hexdigest(), "size_bytes": len(BYTES), **changed,
    }  # fmt: skip


def fetch(state: Path, *shards: dict[str, Any]) -> None:
    fetching.fetch({"shards": list(shards), "paths": {"state": str(state)}})


def staged(state: Path) -> list[str]:
    return sorted(path.name for path in (state / "models" / ".staging").glob("*"))


@pytest.fixture
def aria2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in that runs the script in this file, with the staged file as its $1."""
    script, program = tmp_path / "script", tmp_path / "bin" / "aria2c"
    program.parent.mkdir()
    read = "sed -n 's/^  \\(dir\\|out\\)=//p' | paste -sd/"
    program.write_text(f'#!/bin/sh\necho $$ >{tmp_path}/pid\nexec sh {script} "$({read})"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(fetching, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(fetching, "WATCH_SECONDS", 0.05)
    return script


def assert_gone(tmp_path: Path) -> None:
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


def test_a_hub_without_end_is_stopped_at_the_locked_size(aria2: Path, tmp_path: Path) -> None:
    # Like aria2, it writes its control file beside the download on SIGTERM.
    aria2.write_text(
        'trap "touch $1.aria2; exit 7" TERM\nhead -c 8M /dev/zero >"$1"\nsleep 30 & wait\n'
    )
    began = time.monotonic()
    with pytest.raises(HostError, match="more than the 7000 bytes") as caught:
        fetch(tmp_path, shard(tmp_path))
    assert time.monotonic() - began < 15
    assert "Next: " in str(caught.value)
    assert staged(tmp_path) == []
    assert_gone(tmp_path)


def test_an_aria2_that_does_not_end_is_killed(
    aria2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "STOP_SECONDS", 0.2)
    aria2.write_text('trap "" TERM\nhead -c 8M /dev/zero >"$1"\nwhile :; do sleep 1; done\n')
    with pytest.raises(HostError, match="more than"):
        fetch(tmp_path, shard(tmp_path))
    assert_gone(tmp_path)


def test_a_file_that_is_longer_at_the_end_is_not_read(aria2: Path, tmp_path: Path) -> None:
    aria2.write_text('head -c 8M /dev/zero >"$1"\n')
    with pytest.raises(HostError, match="more than"):
        fetch(tmp_path, shard(tmp_path))
    assert staged(tmp_path) == []


def test_a_hub_that_drips_is_given_up(
    aria2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "PATIENCE_SECONDS", 1)
    # Each try writes a block of the disk, so something has arrived.
    aria2.write_text(
        'head -c 4096 /dev/zero >>"$1"\nsleep 0.1\n[ $(stat -c %s "$1") -gt 200000 ] && exit 9\n'
        "exit 5\n"
    )
    with pytest.raises(HostError, match="bytes arrived in 1 s"):
        fetch(tmp_path, shard(tmp_path, size_bytes=2**30))
    assert staged(tmp_path) != []


def test_what_no_shard_wants_is_removed_from_staging(aria2: Path, tmp_path: Path) -> None:
    own, other = shard(tmp_path), shard(tmp_path, path=f"{tmp_path}/models/a/b/y", sha256="b" * 64)
    folder = tmp_path / "models" / ".staging"
    folder.mkdir(parents=True)
    for name in ("a" * 64, f"{'a' * 64}.aria2", "b" * 64, f"{'b' * 64}.aria2"):
        (folder / name).write_bytes(b"part")
    aria2.write_text("exit 9\n")
    with pytest.raises(HostError, match="disk full"):
        fetch(tmp_path, own, other)
    assert staged(tmp_path) == ["b" * 64, f"{'b' * 64}.aria2"]


@pytest.mark.parametrize("size", ["many", "-1", "1e9", "9" * 5000, "\x1b[2J"])
def test_a_size_that_is_no_number_is_refused(tmp_path: Path, size: str) -> None:
    with serving(b"", headers={"X-Linked-Size": size}) as url, pytest.raises(HostError) as caught:
        fetching.ask_hub(shard(tmp_path, f"{url}/x"))
    assert "the hub says" in str(caught.value)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("place", ["http://[", "ftp://h/x", "\x00", "//"])
def test_a_redirect_to_nowhere_is_not_followed_by_the_first_question(
    tmp_path: Path, place: str
) -> None:
    with serving(b"", status=302, headers={"Location": place}) as url:
        fetching.ask_hub(shard(tmp_path, f"{url}/x"))


@pytest.mark.parametrize("place", ["http://[", "file:///etc/shadow", "", "/again", "http://h/\x1b"])
def test_a_header_is_not_looked_for_elsewhere(place: str) -> None:
    with (
        serving(b"", status=302, headers={"Location": place}) as url,
        pytest.raises(OSError, match="redirects? to no address|more than 10 redirects"),
    ):
        hub_client.follow(f"{url}/x", {})


def test_the_body_of_a_redirect_is_not_read(running: RunningHub) -> None:
    # A body that is not complete yet: reading it waits for the rest.
    said = {"Location": f"{running.url}{RESOLVE}/README.md", "Content-Length": "1000000"}
    with serving(b"", status=302, headers=said) as url:
        began = time.monotonic()
        with contextlib.closing(hub_client.follow(f"{url}/x", {})) as answer:
            assert hub_client.read(answer, 9) == running.get(f"{RESOLVE}/README.md").body[:9]
    assert time.monotonic() - began < 10


def test_a_header_that_drips_is_given_up(
    running: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_client, "MOST_SECONDS", 0)
    with (
        contextlib.closing(hub_client.follow(f"{running.url}{RESOLVE}/{WHOLE}", {})) as answer,
        pytest.raises(OSError, match="no end after 0 s"),
    ):
        hub_client.read(answer, 2**20)


def test_the_stand_in_says_another_size(running: RunningHub, tmp_path: Path) -> None:
    asked = shard(tmp_path, f"{running.url}{RESOLVE}/{WHOLE}")
    commit = running.get(f"{RESOLVE}/{WHOLE}", "HEAD").headers["X-Repo-Commit"]
    rule = Rule(match="*.gguf", kind="linked_size", text="NaN")
    with faults(running.root, rule), pytest.raises(HostError, match="NaN"):
        fetching.ask_hub({**asked, "revision": commit})


@NEEDS_ARIA2
@pytest.mark.parametrize(
    ("kind", "reported"),
    [("endless", "more than"), ("html", "sha256"), ("bomb", "sha256|more than")],
)
def test_aria2_itself_is_stopped(
    running: RunningHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, reported: str
) -> None:
    monkeypatch.setattr(fetching, "WATCH_SECONDS", 0.05)
    reply = running.get(f"{RESOLVE}/{WHOLE}", "HEAD")
    asked = shard(
        tmp_path, f"{running.url}{RESOLVE}/{WHOLE}", revision=reply.headers["X-Repo-Commit"],
        size_bytes=len(running.content), sha256=hashlib.sha256(running.content).hexdigest(),
    )  # fmt: skip
    fields = {"size_bytes": 2**26} if kind == "bomb" else {}
    rule = Rule.model_validate({"match": "/cdn/*", "kind": kind, **fields})
    with faults(running.root, rule), pytest.raises(HostError, match=reported):
        fetch(tmp_path, asked)
    assert staged(tmp_path) == []
    fetch(tmp_path, asked)
    assert Path(asked["path"]).read_bytes() == running.content


METALINK = """<?xml version="1.0" encoding="UTF-8"?>
<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="owned"><url>{}/x</url></file>
</metalink>"""


@NEEDS_ARIA2
def test_a_list_of_other_addresses_is_weights_and_nothing_else(tmp_path: Path) -> None:
    seen: Seen = []
    with serving(BYTES, seen=seen) as other:
        body = METALINK.format(other).encode()
        kind = {"Content-Type": "application/metalink4+xml", "Link": f"<{other}/x>; rel=duplicate"}
        with serving(body, headers=kind) as url, pytest.raises(HostError, match="sha256"):
            fetch(tmp_path, shard(tmp_path, f"{url}/x"))
    assert seen == []
    assert staged(tmp_path) == []
