"""HTTP requests to a hub, whose answers may be endless.

A token goes to the hub that issued it, and never along a redirect to another host.
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
    """Follows no redirect; Python's own handler would read the whole body of each."""

    def http_error_302(self, *_):
        return None

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def with_token(shards, token):
    """Shards; those of gated models carry the token while they are fetched."""
    return [{**one, "token": token} if token and one.get("gated") else one for one in shards]


def ask(url, *, method="GET", headers=None, timeout=30, token=None):
    """The answer with any status, a redirect too. Raises OSError, HTTPException."""
    sent = {**(headers or {}), **authorization(url, token)}
    request = urllib.request.Request(url, method=method, headers=sent)
    try:
        return urllib.request.build_opener(Stay).open(request, timeout=timeout)
    except urllib.error.HTTPError as answer:
        return answer


def follow(url, headers, token=None):
    """Follow redirects; returns the last answer, with its body unread. Raises as `ask` does."""
    for _ in range(MOST_REDIRECTS):
        answer = ask(url, headers=headers, token=token)
        if answer.status not in REDIRECTS:
            return answer
        url = target(url, answer.headers.get("Location", ""))
        answer.close()
        # Once a redirect left the hub, the token stays away: another host chose the rest.
        token = token if is_hub(url) else None
    raise OSError(f"more than {MOST_REDIRECTS} redirects")


def lent(url, token):
    """The hub's own last status, and the address to which it redirects a request with the token.

    That is an address of its storage, valid for a while without a token. Raises as `ask` does.
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
