"""Questions to a hub, whose answers may have no end.

A token goes to the hub that gave it and never along a redirect to somebody else.
"""

import contextlib
import re
import time
import urllib.error
import urllib.parse
import urllib.request

from corral_shared.hub import authorization, is_hub

ADDRESS = re.compile(r"https?://[!-~]+")
MOST_REDIRECTS = 10
MOST_SECONDS = 300
REDIRECTS = (301, 302, 303, 307, 308)


class Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect; the handler of Python reads the whole body of each."""

    def http_error_302(self, *_):
        return None

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def with_token(shards, token):
    """Those of gated models carry it while they are fetched."""
    return [{**one, "token": token} if token and one.get("gated") else one for one in shards]


def ask(url, *, method="GET", headers=None, timeout=30, token=None):
    """The answer, whatever its status; a redirect is one. Raises OSError, HTTPException."""
    sent = {**(headers or {}), **authorization(url, token)}
    request = urllib.request.Request(url, method=method, headers=sent)
    try:
        return urllib.request.build_opener(Stay).open(request, timeout=timeout)
    except urllib.error.HTTPError as answer:
        return answer


def follow(url, headers, token=None):
    """The answer that redirects lead to, none of its body read. Raises as `ask` does."""
    for _ in range(MOST_REDIRECTS):
        answer = ask(url, headers=headers, token=token)
        if answer.status not in REDIRECTS:
            return answer
        url = target(url, answer.headers.get("Location", ""))
        answer.close()
        # Who was left is not gone back to with it: the way there was somebody else's.
        token = token if is_hub(url) else None
    raise OSError(f"more than {MOST_REDIRECTS} redirects")


def lent(url, token):
    """The last status of the hub itself, and where it sends who has the token.

    That is an address of its storage, good for a while without a token. Raises as `ask` does.
    """
    for _ in range(MOST_REDIRECTS):
        with contextlib.closing(ask(url, token=token)) as answer:
            if answer.status not in REDIRECTS:
                return answer.status, None
            url = target(url, answer.headers.get("Location", ""))
        if not is_hub(url):
            return answer.status, url
    raise OSError(f"more than {MOST_REDIRECTS} redirects")


def target(url, location):
    try:
        found = urllib.parse.urljoin(url, location)
    except ValueError as error:
        raise OSError(f"a redirect to no address: {error}") from error
    if not ADDRESS.fullmatch(found):
        raise OSError("a redirect to no address by http")
    return found


def read(answer, size):
    """At most ``size`` bytes of the body. The socket's own timeout begins again with each byte."""
    data, until = b"", time.monotonic() + MOST_SECONDS
    while len(data) < size:
        block = answer.read1(size - len(data))
        if not block:
            break
        data += block
        if time.monotonic() > until:
            raise OSError(f"no end after {MOST_SECONDS} s")
    return data
