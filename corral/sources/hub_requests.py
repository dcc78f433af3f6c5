"""Requests to a hub with limits in size and time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from httpx2 import Client, Response

_MOST_REDIRECTS = 10


@contextmanager
def answer(client: Client, url: str, headers: Mapping[str, str]) -> Iterator[Response]:
    """The response after redirects, its body not read yet.

    Redirects are followed here, since a client that follows them reads the whole body of each.
    The client drops the token where a redirect leads to another origin.
    Raises httpx2.HTTPError, httpx2.InvalidURL, ValueError.
    """
    # httpx2 takes longer to import than most commands to run.
    from httpx2 import TooManyRedirects

    request = client.build_request("GET", url, headers=headers)
    for _ in range(_MOST_REDIRECTS):
        response = client.send(request, stream=True, follow_redirects=False)
        try:
            if response.next_request is None:
                yield response
                return
            request = response.next_request
        finally:
            response.close()
    raise TooManyRedirects(f"more than {_MOST_REDIRECTS} redirects", request=request)


def read_body(response: Response, *, most_bytes: int, most_seconds: float) -> bytes:
    """The undecoded body, cut after ``most_bytes``. Raises httpx2.HTTPError.

    The client's own timeout restarts with each byte, so it does not limit the whole body.
    """
    from httpx2 import ReadTimeout

    body, until = bytearray(), time.monotonic() + most_seconds
    for chunk in response.iter_raw():
        body += chunk
        if len(body) >= most_bytes:
            break
        if time.monotonic() > until:
            raise ReadTimeout(f"no end after {most_seconds:g} s", request=response.request)
    return bytes(body[:most_bytes])
