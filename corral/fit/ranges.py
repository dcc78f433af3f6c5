"""Fetch headers by range requests: the first megabytes of files of many gigabytes.

The only module of `corral.fit` that uses the network.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from corral_shared.hub import authorization
from corral_shared.text import printable_line

from corral.errors import CorralError
from corral.fit.gguf import parse_header
from corral.fit.header_file import StoredHeader
from corral.fit.safetensors.stored import StoredSafetensors
from corral.model_files.errors import BadHeaderError, NeedMoreError
from corral.model_files.safetensors import parse_safetensors
from corral.sources.hub_requests import answer, read_body
from corral.sources.hub_token import operator_token

if TYPE_CHECKING:
    from httpx2 import Client, Response

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

    @property
    def hub(self) -> str:
        """Host and port of its URL."""
        return urlsplit(self.url).netloc


@dataclass(frozen=True, slots=True)
class Waiting:
    """How long a hub is waited for: for its next byte, and for a whole answer."""

    byte_seconds: float = 30
    answer_seconds: float = 300


PATIENT = Waiting()
# For commands that show what runs: they answer without the hub, too.
BRIEF = Waiting(byte_seconds=4, answer_seconds=20)


class SilentHubError(CorralError):
    """A hub that does not answer."""


Stored = TypeVar("Stored", bound=StoredHeader | StoredSafetensors)


# The header at the start of some bytes, checked against its shard. Raises NeedMoreError,
# BadHeaderError, and CorralError for a shard of another size.
ReadHeader = Callable[[bytes, ShardSource], Stored]


def read_gguf(data: bytes, shard: ShardSource) -> StoredHeader:
    """A GGUF header; its writer may have padded the last tensor."""
    header = parse_header(data)
    _check_size(shard, header.file_bytes)
    return StoredHeader(header, _sha256(data, header.data_start_bytes))


def read_safetensors(data: bytes, shard: ShardSource) -> StoredSafetensors:
    """A safetensors header; its tensors fill the file exactly."""
    header = parse_safetensors(data)
    _check_size(shard, header.file_bytes)
    if header.file_bytes < shard.size_bytes:
        surplus = shard.size_bytes - header.file_bytes
        raise BadHeaderError(f"{surplus} bytes of the file belong to no tensor")
    return StoredSafetensors(header, _sha256(data, header.data_start_bytes))


def fetch_headers(
    shards: Sequence[ShardSource], read: ReadHeader[Stored], waiting: Waiting = PATIENT
) -> list[Stored]:
    """The headers of ``shards`` in their order.

    Raises CorralError for the first that fails, SilentHubError where the hub does not answer.
    """
    if not shards:
        return []
    # Imported here: the import takes longer than the rest of a command that fetches nothing.
    from httpx2 import Client

    with (
        Client(timeout=waiting.byte_seconds) as client,
        ThreadPoolExecutor(_CONNECTIONS) as pool,
    ):
        return list(pool.map(partial(_fetch, client, waiting, read), shards))


def _fetch(
    client: Client, waiting: Waiting, read: ReadHeader[Stored], shard: ShardSource
) -> Stored:
    data, wanted_bytes = b"", _first_bytes(shard.url)
    while True:
        data += _read(client, waiting, shard, len(data), min(wanted_bytes, shard.size_bytes))
        try:
            return read(data, shard)
        except NeedMoreError as more:
            _check_size(shard, more.at_least_bytes)
            wanted_bytes = max(more.at_least_bytes, len(data) + _STEP_BYTES)
        except BadHeaderError as error:
            raise CorralError(
                shard.url, f"the header cannot be read: {error}", "choose another quant or file"
            ) from error


def fetch_content(file: ShardSource, waiting: Waiting = PATIENT) -> bytes:
    """A small file, proved by its size and digest. Raises as ``fetch_headers``."""
    from httpx2 import Client

    with Client(timeout=waiting.byte_seconds) as client:
        check = partial(_check_whole, file)
        data = _body(client, waiting, file, {}, check, file.size_bytes + 1)
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise CorralError(file.url, "the hub sent other bytes than the locked ones", _LOCK_AGAIN)
    return data


def _sha256(data: bytes, size_bytes: int) -> str:
    return hashlib.sha256(memoryview(data)[:size_bytes]).hexdigest()


def _first_bytes(url: str) -> int:
    path = urlsplit(url).path
    found = _SHARD_NUMBER.search(path)
    without_vocabulary = path.endswith(".safetensors") or (found and int(found[1]) > 1)
    return _LATER_SHARD_BYTES if without_vocabulary else _FIRST_SHARD_BYTES


def _check_size(shard: ShardSource, at_least_bytes: int) -> None:
    if at_least_bytes > shard.size_bytes:
        what = f"truncated: it has {shard.size_bytes} bytes, its header asks for {at_least_bytes}"
        raise CorralError(shard.url, what, "choose another quant or file")


def _read(client: Client, waiting: Waiting, shard: ShardSource, start: int, end: int) -> bytes:
    """Bytes ``start`` up to, not including, ``end``; a redirect is asked for anew each time."""
    asked = {"Range": f"bytes={start}-{end - 1}"}
    body = _body(client, waiting, shard, asked, partial(_check_part, shard, start), end - start)
    if len(body) != end - start:
        what = f"the hub sent {len(body)} of the {end - start} bytes from byte {start} on"
        raise CorralError(shard.url, what, "run the command again")
    return body


def _body(
    client: Client,
    waiting: Waiting,
    shard: ShardSource,
    asked: Mapping[str, str],
    check: Callable[[Response], None],
    most_bytes: int,
) -> bytes:
    """The body of an answer that ``check`` accepts before it is read: it may be 80 GB."""
    from httpx2 import HTTPError, InvalidURL

    token = operator_token() if shard.gated else None
    headers = {"Accept-Encoding": "identity", **asked, **authorization(shard.url, token)}
    try:
        with answer(client, shard.url, headers) as response:
            _check_status(shard, response.status_code)
            check(response)
            return read_body(response, most_bytes=most_bytes, most_seconds=waiting.answer_seconds)
    except (HTTPError, InvalidURL, ValueError) as error:
        what = f"the hub does not answer: {printable_line(error) or type(error).__name__}"
        next_step = "check that the hub can be reached, then run the command again"
        raise SilentHubError(shard.url, what, next_step) from error


def _check_status(shard: ShardSource, status: int) -> None:
    if status in _REFUSALS:
        what, next_step = _REFUSALS[status]
        next_step = _GRANTED if shard.gated and status in (401, 403) else next_step
        raise CorralError(shard.url, f"{what} ({status})", next_step)


def _check_whole(file: ShardSource, response: Response) -> None:
    if response.status_code != 200:
        what = f"the hub answers {response.status_code}"
        raise CorralError(file.url, what, "run the command again later")


def _check_part(shard: ShardSource, start: int, response: Response) -> None:
    status = response.status_code
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
