"""Bodies of the stand-in hub: ranges of files, with injected faults."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

from lab.faults import Rule
from lab.hub_store import StoredFile

_CHUNK_BYTES = 64 * 1024
_SLOW_CHUNKS_PER_SECOND = 20
_RANGE = re.compile(r"bytes=(?P<first>\d*)-(?P<last>\d*)")


class UnsatisfiableRangeError(Exception):
    """A range that begins after the end of the file."""


@dataclass(frozen=True)
class Span:
    """Bytes `start` up to, not including, `end` of a file."""

    start: int
    end: int


def parse_range(header: str | None, size_bytes: int) -> Span | None:
    """The span that a Range header asks for; None means the whole file.

    A header that is malformed or names several ranges counts as none (RFC 9110, section 14.2).
    Raises UnsatisfiableRangeError.
    """
    found = _RANGE.fullmatch(header.strip()) if header else None
    if not found or not (found["first"] or found["last"]):
        return None
    if found["first"]:
        start = int(found["first"])
        end = min(int(found["last"]) + 1, size_bytes) if found["last"] else size_bytes
    else:
        start, end = max(size_bytes - int(found["last"]), 0), size_bytes
    if start >= size_bytes:
        raise UnsatisfiableRangeError
    return Span(start, end) if start < end else None


def read_span(file: StoredFile, span: Span, rule: Rule | None) -> Iterator[bytes]:
    """The bytes of a span in chunks, with the faults of a rule that show in a body."""
    pace = rule.bytes_per_second if rule else None
    chunk_bytes = max(pace // _SLOW_CHUNKS_PER_SECOND, 1) if pace else _CHUNK_BYTES
    end = _end(span, rule)
    with file.location.open("rb") as stream:
        stream.seek(span.start)
        for start in range(span.start, end, chunk_bytes):
            chunk = stream.read(min(chunk_bytes, end - start))
            if pace:
                time.sleep(len(chunk) / pace)
            yield _flipped(chunk, start, rule)


def _end(span: Span, rule: Rule | None) -> int:
    if rule is None or rule.after_bytes is None:
        return span.end
    return min(span.end, span.start + rule.after_bytes)


def _flipped(chunk: bytes, start: int, rule: Rule | None) -> bytes:
    if rule is None or rule.offset_bytes is None:
        return chunk
    index = rule.offset_bytes - start
    if not 0 <= index < len(chunk):
        return chunk
    return chunk[:index] + bytes([chunk[index] ^ 1]) + chunk[index + 1 :]
