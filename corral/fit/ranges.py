"""Fetch headers by range requests: the first megabytes of files of many gigabytes.

The only module of `corral.fit` that uses the network.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from corral_shared.hub import authorization
from corral_shared.text import printable_line

from corral.errors import CorralError
from corral.fit.gguf import BadHeaderError, NeedMoreError, parse_header
from corral.fit.header_file import StoredHeader
from corral.sources.hub_requests import answer, read_body
from corral.sources.hub_token import operator_token

if TYPE_CHECKING:
    from httpx2 import Client, Response

_TIMEOUT_SECONDS = 30
_MOST_SECONDS = 300
_CONNECTIONS = 4
# The first shard, or a single file, has the vocabulary; headers of later shards are small.
_FIRST_SHARD_BYTES = 4 * 1024**2
_LATER_SHARD_BYTES = 256 * 1024
_STEP_BYTES = 1024**2
_SHARD_NUMBER = re.compile(r"-([0-9]{5})-of-[0-9]{5}\.gguf")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})")

_LOCK_AGAIN = "check that the hub has the locked revision, or run `corral lock` and read the diff"
_GRANTED = "set HF_TOKEN, or use `hf auth login`, for an account with granted access"
_REFUSALS = {
    401: ("the hub requires a token", "name a public repository, or a mirror: set hub_url"),
    403: ("the hub forbids it", "name a public repository, or a mirror: set hub_url"),
    404: ("the hub has no such file", _LOCK_AGAIN),
    416: ("the hub's file is shorter than the locked one", _LOCK_AGAIN),
}


@dataclass(frozen=True, slots=True)
class ShardSource:
    """URL of a shard, and its entry in the lock file; ``gated`` as in a ShardPlan."""

    url: str
    sha256: str
    size_bytes: int
    gated: bool = False


def fetch_headers(shards: Sequence[ShardSource]) -> list[StoredHeader]:
    """The headers of ``shards`` in their order. Raises CorralError for the first that fails."""
    if not shards:
        return []
    # Imported here: the import takes longer than the rest of a command that fetches nothing.
    from httpx2 import Client

    with (
        Client(timeout=_TIMEOUT_SECONDS) as client,
        ThreadPoolExecutor(_CONNECTIONS) as pool,
    ):
        return list(pool.map(partial(_fetch, client), shards))


def _fetch(client: Client, shard: ShardSource) -> StoredHeader:
    data, wanted_bytes = b"", _first_bytes(shard.url)
    while True:
        data += _read(client, shard, len(data), min(wanted_bytes, shard.size_bytes))
        try:
            header = parse_header(data)
        except NeedMoreError as more:
            _check_size(shard, more.at_least_bytes)
            wanted_bytes = max(more.at_least_bytes, len(data) + _STEP_BYTES)
        except BadHeaderError as error:
            raise CorralError(
                shard.url, f"the header cannot be read: {error}", "choose another quant or file"
            ) from error
        else:
            _check_size(shard, header.file_bytes)
            raw = memoryview(data)[: header.data_start_bytes]
            return StoredHeader(header, hashlib.sha256(raw).hexdigest())


def _first_bytes(url: str) -> int:
    found = _SHARD_NUMBER.search(urlsplit(url).path)
    return _LATER_SHARD_BYTES if found and int(found[1]) > 1 else _FIRST_SHARD_BYTES


def _check_size(shard: ShardSource, at_least_bytes: int) -> None:
    if at_least_bytes > shard.size_bytes:
        what = f"truncated: it has {shard.size_bytes} bytes, its header asks for {at_least_bytes}"
        raise CorralError(shard.url, what, "choose another quant or file")


def _read(client: Client, shard: ShardSource, start: int, end: int) -> bytes:
    """Bytes ``start`` up to, not including, ``end``; a redirect is asked for anew each time."""
    from httpx2 import HTTPError, InvalidURL

    token = operator_token() if shard.gated else None
    headers = {
        "Range": f"bytes={start}-{end - 1}",
        "Accept-Encoding": "identity",
        **authorization(shard.url, token),
    }
    try:
        with answer(client, shard.url, headers) as response:
            _check_answer(shard, response, start)
            body = read_body(response, most_bytes=end - start, most_seconds=_MOST_SECONDS)
    except (HTTPError, InvalidURL, ValueError) as error:
        what = f"the hub does not answer: {printable_line(error) or type(error).__name__}"
        next_step = "check that the hub can be reached, then run the command again"
        raise CorralError(shard.url, what, next_step) from error
    if len(body) != end - start:
        what = f"the hub sent {len(body)} of the {end - start} bytes from byte {start} on"
        raise CorralError(shard.url, what, "run the command again")
    return body


def _check_answer(shard: ShardSource, response: Response, start: int) -> None:
    """Check status and range before the body is read: it may be 80 GB."""
    status = response.status_code
    if status in _REFUSALS:
        what, next_step = _REFUSALS[status]
        next_step = _GRANTED if shard.gated and status in (401, 403) else next_step
        raise CorralError(shard.url, f"{what} ({status})", next_step)
    if status == 200:
        what = "the hub does not serve ranges: it would send the whole file for its header"
        raise CorralError(shard.url, what, "use a mirror that does: set hub_url")
    if status != 206:
        raise CorralError(shard.url, f"the hub answers {status}", "run the command again later")
    _check_range(shard, response.headers.get("Content-Range", ""), start)


def _check_range(shard: ShardSource, content_range: str, start: int) -> None:
    found = _CONTENT_RANGE.fullmatch(content_range)
    if not found or int(found[1]) != start:
        what = f"requested bytes from {start} on, the hub answers with {content_range!r}"
        raise CorralError(shard.url, what, "use another mirror: set hub_url")
    if int(found[2]) != shard.size_bytes:
        what = f"the hub's file has {found[2]} bytes, the locked one {shard.size_bytes}"
        raise CorralError(shard.url, what, _LOCK_AGAIN)
