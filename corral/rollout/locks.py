"""One rollout at a time: a lock on the controller, and one held on every host."""

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

# The host lets go when it heard nothing for a minute.
_SECONDS_BETWEEN_SIGNS = 15
_ROOM = "make room there, or name another folder with --state, then ask again"


@contextmanager
def fleet_lock(folder: Path, inventory: Path, *, by: str, since: str) -> Iterator[None]:
    """Hold the lock of an inventory on this controller; it is free once this process is gone.

    Raises CorralError naming who holds it.
    """
    make_folder(folder, mode=0o700, next_step=_ROOM)
    digest = hashlib.sha256(str(inventory.resolve()).encode()).hexdigest()[:8]
    path = folder / f"{inventory.stem}-{digest}.lock"
    with writing(path, next_step=_ROOM):
        file = path.open("a+", encoding="utf-8")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _taken(file, str(inventory)) from error
        with writing(path, next_step=_ROOM):
            _sign(file, {"by": by, "since": since, "pid": os.getpid()})
        yield


def _sign(file: IO[str], holder: dict[str, object]) -> None:
    # Not by the file's buffer, which would fail a second time when it is closed.
    os.ftruncate(file.fileno(), 0)
    os.write(file.fileno(), json.dumps(holder).encode())


def _taken(file: IO[str], inventory: str) -> CorralError:
    file.seek(0)
    try:
        holder = json.loads(file.read())
    except json.JSONDecodeError:
        holder = {}  # it is being written
    who = f"{holder.get('by', 'somebody')} (process {holder.get('pid', 'unknown')})"
    what = f"a rollout runs since {holder.get('since', 'just now')}, by {who}"
    return CorralError(inventory, what, "wait for it, then ask again")


class Holds:
    """The rollout lock of every host, each held by a connection that gives signs of life.

    + also: hosts that are held where they can be: gateways, and all that is not staged yet
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
        self._signs = threading.Thread(target=self._give_signs, daemon=True)

    def __enter__(self) -> Holds:
        try:
            self.check()
        except CorralError:
            self._close()
            raise
        self._signs.start()
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._ended.set()
        self._signs.join()
        self._close()

    def check(self) -> None:
        """Take again what a cut link let go. Raises CorralError when somebody else holds it."""
        lost = [pair for pair in self._hosts if not self._is_held(pair[0].name)]
        on_all(lambda pair: self._take(*pair), lost)
        # A host may be a gateway too: by name, so that it is asked once.
        free = {pair[0].name: pair for pair in self._also if not self._is_held(pair[0].name)}
        on_all(lambda pair: self._try(*pair), free.values())

    def need(self, hosts: Sequence[tuple[Host, HostPlan]]) -> None:
        """From now on these must be held. Raises CorralError when one of them cannot be."""
        self._hosts = hosts
        self.check()

    def _is_held(self, host: str) -> bool:
        held = self._open.get(host)
        return held is not None and held.lasts()

    def _take(self, host: Host, plan: HostPlan) -> None:
        spec = {"paths": plan.paths.model_dump(), **self._holder}
        self._open[host.name] = Lease(host, plan.paths.helper, json.dumps(spec))

    def _try(self, host: Host, plan: HostPlan) -> None:
        with suppress(NoHelperError, UnreachedError):
            self._take(host, plan)

    def _give_signs(self) -> None:
        while not self._ended.wait(_SECONDS_BETWEEN_SIGNS):
            for held in tuple(self._open.values()):
                held.send("")

    def _close(self) -> None:
        for held in self._open.values():
            held.close()
