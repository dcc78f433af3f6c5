"""A store of headers of shards, fetched once and stored by digest."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from corral.errors import CorralError
from corral.files import make_folder, write_atomic
from corral.fit.header_file import StoredHeader, decode, encode
from corral.fit.ranges import ShardSource, fetch_headers

__all__ = ["HeaderStore", "ShardSource", "StoredHeader"]

_FREE_SPACE = "free disk space there"


class HeaderStore:
    """A folder of headers, one file per digest of a shard. Several processes may use it at once.

    + folder: created with the first header; nothing is stored where it cannot be written
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def header(self, shard: ShardSource) -> StoredHeader:
        """The header of one shard. Raises CorralError as `headers` does."""
        return self.headers([shard])[0]

    def headers(self, shards: Sequence[ShardSource]) -> list[StoredHeader]:
        """The headers of ``shards`` in their order; those not stored yet are fetched together.

        Raises CorralError when the hub does not serve one, or it does not match its shard.
        """
        known = {shard: self._read(shard.sha256) for shard in shards}
        missing = [shard for shard, stored in known.items() if stored is None]
        fetched = dict(zip(missing, fetch_headers(missing), strict=True))
        for shard, stored in fetched.items():
            self._write(shard.sha256, stored)
        return [known[shard] or fetched[shard] for shard in shards]

    def _path(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.header"

    def _read(self, sha256: str) -> StoredHeader | None:
        try:
            return decode(self._path(sha256).read_bytes())
        except OSError:
            # Absent or unreadable: either costs a fetch and is no fault.
            return None

    def _write(self, sha256: str, stored: StoredHeader) -> None:
        # A header that cannot be stored is fetched again next time; the answer is the same.
        with suppress(CorralError):
            make_folder(self._folder, next_step=_FREE_SPACE)
            write_atomic(self._path(sha256), encode(stored), next_step=_FREE_SPACE)
