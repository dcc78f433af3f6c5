"""A store of headers of shards, and of small files beside them, fetched once by digest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from corral.errors import CorralError
from corral.files import make_folder, write_atomic
from corral.fit import header_file
from corral.fit.header_file import StoredHeader
from corral.fit.ranges import (
    BRIEF,
    PATIENT,
    ReadHeader,
    ShardSource,
    SilentHubError,
    Stored,
    Waiting,
    fetch_content,
    fetch_headers,
    read_gguf,
    read_safetensors,
)
from corral.fit.safetensors import stored
from corral.fit.safetensors.stored import StoredSafetensors

__all__ = ["HeaderStore", "ShardSource", "StoredHeader", "StoredSafetensors"]

Answer = TypeVar("Answer")
_FREE_SPACE = "free disk space there"


@dataclass(frozen=True, slots=True)
class _Format(Generic[Stored]):
    """A format of headers: its reader, and the file that keeps one."""

    suffix: str
    read: ReadHeader[Stored]
    encode: Callable[[Stored], bytes]
    decode: Callable[[bytes], Stored | None]


_GGUF = _Format(".header", read_gguf, header_file.encode, header_file.decode)
_SAFETENSORS = _Format(".safetensors-header", read_safetensors, stored.encode, stored.decode)


class HeaderStore:
    """A folder of headers, one file per digest of a shard. Several processes may use it at once.

    + folder: created with the first header; nothing is stored where it cannot be written
    + brief: a hub is waited for a few seconds only, and one that is silent is not asked again
    """

    def __init__(self, folder: Path, *, brief: bool = False) -> None:
        self._folder = folder
        self._brief = brief
        self._silent: dict[str, SilentHubError] = {}

    def header(self, shard: ShardSource) -> StoredHeader:
        """The header of one GGUF shard. Raises CorralError as `headers` does."""
        return self.headers([shard])[0]

    def headers(self, shards: Sequence[ShardSource]) -> list[StoredHeader]:
        """The headers of GGUF ``shards`` in their order; those not stored are fetched together.

        Raises CorralError when the hub does not serve one, or it does not match its shard.
        """
        return self._all(shards, _GGUF)

    def safetensors(self, shards: Sequence[ShardSource]) -> list[StoredSafetensors]:
        """The headers of safetensors ``shards``, as `headers`."""
        return self._all(shards, _SAFETENSORS)

    def content(self, file: ShardSource) -> bytes:
        """A small file. Raises CorralError when the hub does not serve it as it is locked."""
        path = self._path(file, ".content")
        data = self._stored(path)
        if data is None or hashlib.sha256(data).hexdigest() != file.sha256:
            data = self._asked(file, lambda waiting: fetch_content(file, waiting))
            self._write(path, data)
        return data

    def _all(self, shards: Sequence[ShardSource], form: _Format[Stored]) -> list[Stored]:
        known = {shard: self._read(shard, form) for shard in shards}
        missing = [shard for shard, header in known.items() if header is None]
        fetched = self._fetched(missing, form)
        for shard, header in fetched.items():
            self._write(self._path(shard, form.suffix), form.encode(header))
        return [known[shard] or fetched[shard] for shard in shards]

    def _fetched(
        self, missing: Sequence[ShardSource], form: _Format[Stored]
    ) -> dict[ShardSource, Stored]:
        if not missing:
            return {}
        headers = self._asked(
            missing[0], lambda waiting: fetch_headers(missing, form.read, waiting)
        )
        return dict(zip(missing, headers, strict=True))

    def _asked(self, shard: ShardSource, ask: Callable[[Waiting], Answer]) -> Answer:
        """The answer of the hub of a shard. Raises CorralError."""
        if error := self._silent.get(shard.hub):
            raise error
        try:
            return ask(BRIEF if self._brief else PATIENT)
        except SilentHubError as error:
            if self._brief:
                self._silent[shard.hub] = error
            raise

    def _path(self, shard: ShardSource, suffix: str) -> Path:
        return self._folder / f"{shard.sha256}{suffix}"

    def _read(self, shard: ShardSource, form: _Format[Stored]) -> Stored | None:
        content = self._stored(self._path(shard, form.suffix))
        return form.decode(content) if content is not None else None

    def _stored(self, path: Path) -> bytes | None:
        try:
            return path.read_bytes()
        except OSError:
            # Absent or unreadable: either costs a fetch and is no fault.
            return None

    def _write(self, path: Path, data: bytes) -> None:
        # What cannot be stored is fetched again next time; the answer is the same.
        with suppress(CorralError):
            make_folder(self._folder, next_step=_FREE_SPACE)
            write_atomic(path, data, next_step=_FREE_SPACE)
