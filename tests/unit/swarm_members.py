"""Members of a swarm as processes of this machine, each with folders and ports of its own."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import hub
from lab.hub_store import Store
from tests.ports import free_ports
from tests.samples import ROOT
from tests.unit.helper_modules import helper_module

REPOSITORY = "corral-lab/Swarm-GGUF"
PATIENCE_SECONDS = 240
MIB = 1024**2
# What a host does, without its packet rules, and less patient.
PROGRAM = """
import json, sys
from pathlib import Path
from corral_host.swarm import board, fence, member
from corral_host.weights import fetch
from tests.unit.plain_unit import PlainUnit
member.Unit = PlainUnit
fence.put_up = fence.take_down = lambda *_: None
board.POLL_SECONDS, board.SILENT_SECONDS = 0.3, 8
member.PAUSE_SECONDS, member.FAREWELL_SECONDS = 0.2, 2
fetch.PATIENCE_SECONDS = 12
fetch.PAUSE_SECONDS = 0.2
spec = json.load(sys.stdin)
answer = (member.share if "archives" in spec else member.take_part)(spec)
Path(spec["paths"]["state"], "answer.json").write_text(json.dumps(answer))
"""
receipts = helper_module("weights.receipts")
fetching = helper_module("weights.fetch")
_SENT = re.compile(r"GET /cdn/\S* \d+ range=\S+ bytes=(\d+)")


@dataclass(frozen=True)
class Origin:
    """A hub with one file, and what it sent of it."""

    url: str
    root: Path
    log: io.StringIO
    content: bytes

    @property
    def sent_bytes(self) -> int:
        return sum(int(found[1]) for found in _SENT.finditer(self.log.getvalue()))


@contextlib.contextmanager
def origin(folder: Path, size_bytes: int) -> Iterator[Origin]:
    """Serve a file of random bytes, the same in each run."""
    content = random.Random(19).randbytes(size_bytes)  # noqa: S311 - no secret
    path = folder / "repos" / REPOSITORY / "main" / "w.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    log = io.StringIO()
    with hub.running(folder, log=log) as url:
        yield Origin(url, folder, log, content)


@dataclass
class Member:
    """One host: ``name``, folders below ``state``, an address and two ports of its own."""

    name: str
    state: Path
    address: str
    port: int
    process: subprocess.Popen[str] | None = None
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log = self.state / "log"
        self.state.mkdir(parents=True, exist_ok=True)

    def path(self, commit: str) -> Path:
        return self.state / "models" / REPOSITORY / commit / "w.gguf"

    @property
    def archive(self) -> Path:
        return self.state / "archives" / "a.tar.zst"

    def answer(self) -> Any:
        return json.loads((self.state / "answer.json").read_text())

    def ended(self) -> str:
        """What it printed; it must end with 0."""
        code = self.code()
        assert code == 0, self.printed()
        return self.printed()

    def code(self) -> int:
        assert self.process is not None
        return self.process.wait(timeout=PATIENCE_SECONDS)

    def printed(self) -> str:
        return self.log.read_text()

    def kill(self) -> None:
        """Kill all that it started at once, as a unit's end does."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@dataclass
class Group:
    """Hosts of one inventory that want the file of an origin."""

    origin: Origin
    members: list[Member]

    @property
    def shard(self) -> dict[str, Any]:
        commit = Store(self.origin.root).snapshot(REPOSITORY, "main").commit
        return {
            "url": f"{self.origin.url}/{REPOSITORY}/resolve/main/w.gguf", "revision": commit,
            "sha256": hashlib.sha256(self.origin.content).hexdigest(), "kind": "weights",
            "size_bytes": len(self.origin.content), "gated": False,
        }  # fmt: skip

    def shard_of(self, member: Member) -> dict[str, Any]:
        return {**self.shard, "path": str(member.path(self.shard["revision"]))}

    def peers(self) -> list[dict[str, Any]]:
        return [{"name": m.name, "address": m.address, "port": m.port} for m in self.members]

    def twin_of(self, member: Member) -> dict[str, Any]:
        """The same bytes in another repository."""
        place = member.state / "models" / "corral-lab/Twin-GGUF" / self.shard["revision"]
        return {**self.shard, "path": str(place / "twin.gguf")}

    def start(
        self,
        member: Member,
        *,
        expected: list[str] | None = None,
        twin: bool = False,
        **limits: int,
    ) -> None:
        """Start its job; a file with a receipt is held. ``twin``: it is wanted under two names."""
        shard = self.shard_of(member)
        held = [shard] if receipts.shard_is_proved(shard) else []
        wanted = [*([] if held else [shard]), *([self.twin_of(member)] if twin else [])]
        files = {"held": held, "shards": wanted, "token": None}
        self._start(member, files, expected, limits)

    def start_share(
        self, member: Member, *, held: bool, expected: list[str] | None = None, **limits: int
    ) -> None:
        """Start a job for the same file as an archive of a release."""
        archive = [{**self.shard, "path": str(member.archive)}]
        files = {"held": archive if held else [], "archives": [] if held else archive}
        self._start(member, files, expected, limits)

    def _start(
        self, member: Member, files: dict[str, Any], expected: list[str] | None,
        limits: dict[str, int],
    ) -> None:  # fmt: skip
        names = [one.name for one in self.members]
        swarm = {
            "name": member.name, "peers": self.peers(), "from_hub": 1, "upload_seconds": 240,
            "expected": names if expected is None else expected, "connections": 50,
            "upload_bytes_per_second": 0, **limits,
        }  # fmt: skip
        spec = {"paths": {"state": str(member.state)}, "swarm": swarm, **files}
        with member.log.open("a") as log:
            member.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=log, stderr=log,
                text=True, start_new_session=True, cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT / "files")},
            )  # fmt: skip
        assert member.process.stdin is not None
        member.process.stdin.write(json.dumps(spec))
        member.process.stdin.close()

    def give(self, member: Member) -> Path:
        """Put the file on a host, with a receipt, as after an earlier deploy."""
        shard = self.shard_of(member)
        staged = member.state / "models" / ".staging" / shard["sha256"]
        fetching.make_folders(shard, staged)
        staged.write_bytes(self.origin.content)
        fetching.put_in_place(shard, staged)
        return member.path(self.shard["revision"])

    def assert_whole(self, member: Member) -> None:
        shard = self.shard_of(member)
        assert Path(shard["path"]).read_bytes() == self.origin.content, member.printed()
        assert receipts.shard_is_proved(shard)
        assert not list((member.state / "models" / ".staging").iterdir())

    def end(self) -> None:
        for member in self.members:
            if member.process is not None:
                member.kill()


def group(folder: Path, origin: Origin, count: int) -> Group:
    members = [
        # aria2 refuses an address whose pieces were bad: each host has one of its own.
        Member(f"h{n}", folder / f"h{n}", f"127.0.0.{n + 11}", port)
        for n, port in enumerate(free_ports(count, in_a_row=2))
    ]
    return Group(origin, members)


def wait_for(is_so: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < until, f"never: {what}"
        time.sleep(0.05)
