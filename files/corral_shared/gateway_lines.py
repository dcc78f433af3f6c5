"""The server lines of a gateway's configuration: the addresses of each alias's servers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypedDict

BACKEND = re.compile(r"^backend (\S+)$")
LINE = re.compile(
    r"^  server (?P<server>\S+) (?P<place>\S+) weight (?P<weight>\d+)(?: maxconn (?P<limit>\d+))?$"
)
# A server that moves has two lines for a while; HAProxy's checks find it by one of them. No other
# name has a colon, as names are made of a host and an instance.
NEXT = ":next"


class _Place(TypedDict):
    pool: str | None
    server: str
    place: str
    weight: str


class Line(_Place, total=False):
    """A server of a pool: its name in HAProxy, ADDRESS:PORT, its weight.

    ``limit``: requests that it gets at once; absent for a server without such a limit
    """

    limit: str


def base(name: str) -> str:
    """The name of the server in a line, without the suffix of a move."""
    return name.removesuffix(NEXT)


def server_lines(config: str) -> list[Line]:
    """All server lines, in order."""
    found: list[Line] = []
    pool = None
    for text in config.splitlines():
        if heading := BACKEND.match(text):
            pool = heading[1]
        elif line := LINE.match(text):
            server, place, weight = line.group("server", "place", "weight")
            one: Line = {"pool": pool, "server": server, "place": place, "weight": weight}
            found.append({**one, "limit": line["limit"]} if line["limit"] else one)
    return found


def lines_of(config: str, server: str) -> list[Line]:
    """The lines of one server."""
    return [line for line in server_lines(config) if base(line["server"]) == server]


def with_lines(config: str, server: str, wanted: Sequence[Line]) -> str:
    """The configuration with these lines in place of all lines of a server.

    The position of its first line in a pool is kept, so that nothing else of the text changes.
    Lines of a pool that does not exist are left out.
    """
    blocks = re.split(r"(?m)^(?=backend )", config)
    return "".join(_with_lines(block, server, wanted) for block in blocks)


def _with_lines(block: str, server: str, wanted: Sequence[Line]) -> str:
    lines = block.splitlines(keepends=True)
    heading = BACKEND.match(lines[0].rstrip("\n")) if lines else None
    if heading is None:
        return block
    names = [_server(text) for text in lines]
    own = [n for n, name in enumerate(names) if name is not None and base(name) == server]
    others = [n for n, name in enumerate(names) if name is not None]
    where = own[0] if own else others[-1] + 1 if others else len(lines)
    texts = [_text(line) for line in wanted if line["pool"] == heading[1]]
    rest = [text for n, text in enumerate(lines) if n >= where and n not in own]
    return "".join([*lines[:where], *texts, *rest])


def _text(line: Line) -> str:
    limit = f" maxconn {line['limit']}" if line.get("limit") else ""
    return f"  server {line['server']} {line['place']} weight {line['weight']}{limit}\n"


def _server(text: str) -> str | None:
    line = LINE.match(text.rstrip("\n"))
    return line["server"] if line else None
