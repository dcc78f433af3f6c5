"""Questions to a hub, whose answers may have no end."""

import re
import time
import urllib.error
import urllib.parse
import urllib.request

ADDRESS = re.compile(r"https?://[!-~]+")
MOST_REDIRECTS = 10
MOST_SECONDS = 300
REDIRECTS = (301, 302, 303, 307, 308)


class Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect; the handler of Python reads the whole body of each."""

    def http_error_302(self, *_):
        return None

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def ask(url, *, method="GET", headers=None, timeout=30):
    """The answer, whatever its status; a redirect is one. Raises OSError, HTTPException."""
    request = urllib.request.Request(url, method=method, headers=headers or {})
    try:
        return urllib.request.build_opener(Stay).open(request, timeout=timeout)
    except urllib.error.HTTPError as answer:
        return answer


def follow(url, headers):
    """The answer that redirects lead to, none of its body read. Raises as `ask` does."""
    for _ in range(MOST_REDIRECTS):
        answer = ask(url, headers=headers)
        if answer.status not in REDIRECTS:
            return answer
        url = target(url, answer.headers.get("Location", ""))
        answer.close()
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
