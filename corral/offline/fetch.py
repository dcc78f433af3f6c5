"""Fetch a large file into a bundle: resumed after an interruption, proved by its digest."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from corral_shared.hub import authorization
from corral_shared.text import printable_line

from corral.errors import CorralError
from corral.files import writing
from corral.offline.folder import FREE_SPACE, BundleFolder
from corral.offline.manifest import BundleFile
from corral.schema import Frozen
from corral.sources.hub_requests import answer
from corral.sources.hub_token import operator_token

if TYPE_CHECKING:
    from httpx2 import Response

_BYTE_SECONDS = 60
_TRIES = 5
_PAUSE_SECONDS = 2
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})")
_REFUSED = (401, 403, 404, 410)

Progress = Callable[[int], None]


class Source(Frozen):
    """A file elsewhere; ``gated``: the hub requires the operator's token; ``size_bytes``: if known.

    + most_bytes: limit where the size is not known
    """

    url: str
    sha256: str
    size_bytes: int | None = None
    most_bytes: int = 2**40
    gated: bool = False


class _CutError(Exception):
    """An interruption that may pass."""


def fetch(folder: BundleFolder, name: str, source: Source, progress: Progress) -> BundleFile:
    """Fetch a file of a bundle, unless it is in place. Raises CorralError.

    + progress: called with the bytes that have arrived
    """
    known = folder.known(name)
    if known and known.sha256 == source.sha256:
        return known
    partial, tries = folder.partial(name), 0
    while True:
        had = _size(partial)
        try:
            _resume(partial, source, progress)
            break
        except _CutError as error:
            tries = 0 if _size(partial) > had else tries + 1
            if tries >= _TRIES:
                what = f"does not arrive: {error}; what came before is kept"
                step = "check that it can be reached from here, then run the same command again"
                raise CorralError(source.url, what, step) from error
            time.sleep(_PAUSE_SECONDS * tries)
    return folder.finish(name, source.sha256)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _resume(partial: Path, source: Source, progress: Progress) -> None:
    """Fetch what is missing. Raises _CutError, CorralError."""
    # httpx2 takes longer to import than most commands to run.
    from httpx2 import Client, HTTPError, InvalidURL

    start = _size(partial)
    if source.size_bytes is not None and start > source.size_bytes:
        partial.unlink()
        start = 0
    if start and start == source.size_bytes:
        return
    token = operator_token() if source.gated else None
    headers = {"Accept-Encoding": "identity", **authorization(source.url, token)}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        with (
            Client(timeout=_BYTE_SECONDS) as client,
            answer(client, source.url, headers) as response,
        ):
            start = _begin(response, source, start)
            _append(partial, response, source, start, progress)
    except (HTTPError, InvalidURL, ValueError) as error:
        raise _CutError(printable_line(error) or type(error).__name__) from error


def _begin(response: Response, source: Source, start: int) -> int:
    """The byte that the answer begins with. Raises _CutError, CorralError."""
    status = response.status_code
    if status in _REFUSED:
        step = "check the lock, and who may read it (HF_TOKEN for gated models)"
        raise CorralError(source.url, f"the hub answers {status}", step)
    if status == 206:
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if not found or int(found[1]) != start:
            raise _CutError("the hub answers with another range")
        return start
    if status != 200:
        raise _CutError(f"the hub answers {status}")
    return 0


def _append(
    partial: Path, response: Response, source: Source, start: int, progress: Progress
) -> None:
    most = source.size_bytes or source.most_bytes
    with writing(partial, next_step=FREE_SPACE), partial.open("ab") as out:
        out.truncate(start)
        arrived = start
        # As it arrives: what a killed run had is kept.
        for block in response.iter_raw():
            arrived += len(block)
            if arrived > most:
                break
            out.write(block)
            progress(arrived)
    if arrived > most:
        partial.unlink()
        what = f"has more than the {most} bytes that are locked"
        raise CorralError(source.url, what, "`corral lock`, read the diff")
    if source.size_bytes is not None and arrived < source.size_bytes:
        raise _CutError(f"{arrived} of {source.size_bytes} bytes arrived")
