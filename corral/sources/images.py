"""Images of a site's own, read from URLs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from corral.errors import CorralError
from corral.sources.hub_requests import answer

_CHUNK_BYTES = 4 * 1024**2
_TIMEOUT_SECONDS = 60


def measured(source: str, *, most_bytes: int, where: str) -> tuple[str, int]:
    """The sha256 and the bytes of a file of this controller, or at a URL. Raises CorralError.

    + where: what names it, for errors
    """
    # httpx2 takes longer to import than most commands to run.
    from httpx2 import HTTPError, InvalidURL

    is_path = source.startswith("/")
    found, size = hashlib.sha256(), 0
    try:
        for block in _file(Path(source)) if is_path else _download(source):
            found.update(block)
            size += len(block)
            if size > most_bytes:
                what = f"{source} has more than {most_bytes} bytes"
                raise CorralError(where, what, "name another file, or raise most_bytes")
    except (OSError, HTTPError, InvalidURL, ValueError) as error:
        what = f"{source} is not readable here: {error}"
        step = f'add sha256 = "..." to it (`sha256sum {source}` on a host that has it)'
        raise CorralError(where, what, step if is_path else "check the URL") from error
    if not size:
        raise CorralError(where, f"{source} is empty", "name another file")
    return found.hexdigest(), size


def _file(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_CHUNK_BYTES):
            yield block


def _download(url: str) -> Iterator[bytes]:
    from httpx2 import Client

    with Client(timeout=_TIMEOUT_SECONDS) as client, answer(client, url, {}) as response:
        response.raise_for_status()
        yield from response.iter_raw(_CHUNK_BYTES)
