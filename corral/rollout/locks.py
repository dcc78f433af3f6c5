"""Rollout locks: one on the controller, and one on every host."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from corral.errors import CorralError
from corral.files import make_folder, writing
from corral.inventory.hosts import Host
from corral.plan.host import HostPlan
from corral.remote.lease import Lease, NoHelperError
from corral.remote.run import on_all
from corral.remote.unreached import UnreachedError

# The host releases its lock after a minute without a heartbeat.
_HEARTBEAT_SECONDS = 15
_FREE_SPACE = (
    "free disk space there, or name another folder with --state, then run the same command again"
)


@contextmanager
def fleet_lock(folder: Path, inventory: Path, *, by: str, since: str) -> Iterator[None]:
    """Hold the lock of an inventory on this controller until the block or this process ends.

    Raises CorralError naming the holder.
    """
    make_folder(folder, mode=0o700, next_step=_FREE_SPACE)
    digest = hashlib.sha256(str(inventory.resolve()).encode()).hexdigest()[:8]
    path = folder / f"{inventory.stem}-{digest}.lock"
    with writing(path, next_step=_FREE_SPACE):
        file = path.open("a+", encoding="utf-8")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _held(file, str(inventory)) from error
        with writing(path, next_step=_FREE_SPACE):
            _write_holder(file, {"by": by, "since": since, "pid": os.getpid()})
        yield


def _write_holder(file: IO[str], holder: dict[str, object]) -> None:
    # Not through the file's buffer, which would fail again when the file is closed.
    os.ftruncate(file.fileno(), 0)
    os.write(file.fileno(), json.dumps(holder).encode())


def _held(file: IO[str], inventory: str) -> CorralError:
    file.seek(0)
    try:
        holder = json.loads(file.read())
    except json.JSONDecodeError:
        holder = {}  # it is being written
    by = f"{holder.get('by', 'somebody')} (process {holder.get('pid', 'unknown')})"
    what = f"a rollout has been running since {holder.get('since', 'just now')}, by {by}"
    return CorralError(inventory, what, "wait until it ends, then run the same command again")


class HostLocks:
    """The rollout locks of hosts, each held by a connection that sends heartbeats.

    + also: hosts that are locked where possible: gateways, and hosts that are not staged yet
    """

    def __init__(
        self,
        hosts: Sequence[tuple[Host, HostPlan]],
        *,
        by: str,
        rollout: str,
        also: Sequence[tuple[Host, HostPlan]] = (),
    ) -> None:
        self._hosts = hosts
        self._also = also
        self._holder = {"by": by, "rollout": rollout}
        self._open: dict[str, Lease] = {}
        self._ended = threading.Event()
        self._heartbeats = threading.Thread(target=self._send_heartbeats, daemon=True)

    def __enter__(self) -> HostLocks:
        try:
            self.check()
        except CorralError:
            self._close()
            raise
        self._heartbeats.start()
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._ended.set()
        self._heartbeats.join()
        self._close()

    def check(self) -> None:
        """Take locks again that a cut link released. Raises CorralError where one is held."""
        lost = [pair for pair in self._hosts if not self._is_held(pair[0].name)]
        on_all(lambda pair: self._take(*pair), lost)
        # By name, since a host may also be a gateway.
        free = {pair[0].name: pair for pair in self._also if not self._is_held(pair[0].name)}
        on_all(lambda pair: self._try(*pair), free.values())

    def need(self, hosts: Sequence[tuple[Host, HostPlan]]) -> None:
        """From now on these hosts must be locked. Raises CorralError where one cannot be."""
        self._hosts = hosts
        self.check()

    def _is_held(self, host: str) -> bool:
        held = self._open.get(host)
        return held is not None and held.lasts()

    def _take(self, host: Host, plan: HostPlan) -> None:
        spec = {"paths": plan.paths.model_dump(), **self._holder}
        command = ["python3", "-I", plan.paths.helper, "hold"]
        self._open[host.name] = Lease(host, command, json.dumps(spec))

    def _try(self, host: Host, plan: HostPlan) -> None:
        with suppress(NoHelperError, UnreachedError):
            self._take(host, plan)

    def _send_heartbeats(self) -> None:
        while not self._ended.wait(_HEARTBEAT_SECONDS):
            for held in tuple(self._open.values()):
                held.send("")

    def _close(self) -> None:
        for held in self._open.values():
            held.close()
