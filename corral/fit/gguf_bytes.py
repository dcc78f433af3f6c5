"""The bytes of a GGUF header, taken one after the other."""

from __future__ import annotations

import struct

LONGEST_HEADER_BYTES = 256 * 1024**2

_UINT32 = struct.Struct("<I")
_INT32 = struct.Struct("<i")
_UINT64 = struct.Struct("<Q")


class BadHeaderError(Exception):
    """What is wrong with the header, as one sentence without its full stop."""


class NeedMoreError(Exception):
    """The data ends before the header does; the header has ``at_least_bytes``."""

    def __init__(self, at_least_bytes: int) -> None:
        self.at_least_bytes = at_least_bytes
        super().__init__(f"the header has at least {at_least_bytes} bytes")


class Bytes:
    """A place in the first bytes of a file. Every method raises NeedMoreError past their end,
    and BadHeaderError past LONGEST_HEADER_BYTES.
    """

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data = memoryview(data)[:LONGEST_HEADER_BYTES]
        self.position = 0

    def skip(self, length: int) -> int:
        """Go on by ``length`` bytes; gives the position before."""
        start = self.position
        self._require(start + length)
        self.position += length
        return start

    def numbers(self, layout: struct.Struct) -> tuple[int | float | bool, ...]:
        return layout.unpack_from(self._data, self.skip(layout.size))

    def uint32(self) -> int:
        return int(self.numbers(_UINT32)[0])

    def int32(self) -> int:
        return int(self.numbers(_INT32)[0])

    def uint64(self) -> int:
        return int(self.numbers(_UINT64)[0])

    def raw(self, length: int) -> bytes:
        start = self.skip(length)
        return bytes(self._data[start : start + length])

    def text(self, what: str) -> str:
        """A string after its length; ``what`` names it in errors."""
        return self._decoded(self.uint64(), what)

    def name(self, what: str, *, longest_bytes: int) -> str:
        """A string that errors may show as it is: not empty, short and printable."""
        length = self.uint64()
        if not 0 < length <= longest_bytes:
            raise BadHeaderError(f"{what} has {length} bytes, not 1 to {longest_bytes}")
        name = self._decoded(length, what)
        if not name.isprintable():
            raise BadHeaderError(f"{what} is not printable: {name!a}")
        return name

    def skip_texts(self, count: int) -> None:
        """Go past ``count`` strings without reading them."""
        self._require(self.position + count * _UINT64.size)
        data, position, unpack_from = self._data, self.position, _UINT64.unpack_from
        try:
            for _ in range(count):
                position += 8 + unpack_from(data, position)[0]
        except (struct.error, OverflowError):
            position += 8  # the length that is not there any more
        self._require(position)
        self.position = position

    def _decoded(self, length: int, what: str) -> str:
        try:
            return self.raw(length).decode()
        except UnicodeDecodeError as error:
            raise BadHeaderError(f"{what} is not UTF-8") from error

    def _require(self, end: int) -> None:
        if end > LONGEST_HEADER_BYTES:
            size_mib = LONGEST_HEADER_BYTES // 1024**2
            raise BadHeaderError(f"the header is longer than {size_mib} MiB")
        if end > len(self._data):
            raise NeedMoreError(end)
