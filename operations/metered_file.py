"""A file that pyinfra reads or writes, with a line about how far it is every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from pyinfra.api.host import Host

from corral.remote.meter import Meter, Meters, format_meter
from corral.remote.progress import SECONDS_BETWEEN_LINES
from operations.live import LIVE
from operations.messages import inform

OnMeter = Callable[[Meter], None]
_SECONDS_BETWEEN_LOOKS = 0.5


@contextmanager
def metered_file(path: Path, mode: str, what: str, total_bytes: int, host: Host) -> Iterator[Any]:
    """Open a file for one move; a move of a few seconds prints nothing."""

    def say(meter: Meter) -> None:
        inform(format_meter(meter), host)

    with path.open(mode) as file, LIVE.metered(host.name, say) as on_meter:
        every = _SECONDS_BETWEEN_LOOKS if LIVE.are_drawn else SECONDS_BETWEEN_LINES
        yield _Metered(file, f"{what} {path.name}", total_bytes, on_meter, every)


class _Metered:
    """As the file is, for pyinfra and paramiko, which need more than an `IO` has in its type."""

    def __init__(
        self, file: Any, what: str, total_bytes: int, on_meter: OnMeter, every_seconds: float
    ) -> None:
        self._file: BinaryIO = file
        self._what, self._total_bytes, self._on_meter = what, total_bytes, on_meter
        self._every_seconds = every_seconds
        self._done_bytes = 0
        self._meters = Meters(time.monotonic)
        self._next_at = time.monotonic() + self._every_seconds
        self._meters.timed("", self._meter())

    def read(self, size: int = -1) -> bytes:
        """Bytes on their way to the host."""
        found = self._file.read(size)
        self._count(len(found))
        return found

    def write(self, data: bytes) -> int:
        """Bytes from the host."""
        self._count(len(data))
        return self._file.write(data)

    def seek(self, to: int, whence: int = 0) -> int:
        """A move that is tried again begins anew."""
        found = self._file.seek(to, whence)
        self._done_bytes, self._meters = found, Meters(time.monotonic)
        self._meters.timed("", self._meter())
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def _meter(self) -> Meter:
        fraction = min(self._done_bytes / max(self._total_bytes, 1), 1)
        return Meter(what=self._what, fraction=fraction, done_bytes=self._done_bytes,
                     total_bytes=self._total_bytes)  # fmt: skip

    def _count(self, size: int) -> None:
        self._done_bytes += size
        if time.monotonic() >= self._next_at:
            self._next_at = time.monotonic() + self._every_seconds
            self._on_meter(self._meters.timed("", self._meter()))
