"""The server lines of a gateway's configuration: where the servers of each alias are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypedDict

BACKEND = re.compile(r"^backend (\S+)$")
LINE = re.compile(r"^  server (?P<server>\S+) (?P<place>\S+) weight (?P<weight>\d+)$")
# A server that moves has two lines for a while, of which the checks find one. No other name has
# a colon, as it begins with a host and ends with an instance.
NEXT = ":next"


class Line(TypedDict):
    """A server of a pool: its name in HAProxy's words, ADDRESS:PORT, its share."""

    pool: str | None
    server: str
    place: str
    weight: str


def base(name: str) -> str:
    """The server that a line is about."""
    return name.removesuffix(NEXT)


def server_lines(config: str) -> list[Line]:
    """All of them, in their order."""
    found: list[Line] = []
    pool = None
    for text in config.splitlines():
        if heading := BACKEND.match(text):
            pool = heading[1]
        elif line := LINE.match(text):
            server, place, weight = line.group("server", "place", "weight")
            found.append({"pool": pool, "server": server, "place": place, "weight": weight})
    return found


def lines_of(config: str, server: str) -> list[Line]:
    """The lines of one server."""
    return [line for line in server_lines(config) if base(line["server"]) == server]


def with_lines(config: str, server: str, wanted: Sequence[Line]) -> str:
    """The configuration with these lines in place of all that a server has.

    Its first line in a pool stays where it was, so that nothing else of the text changes.
    Those of a pool that is not there are left out.
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
    texts = [
        f"  server {line['server']} {line['place']} weight {line['weight']}\n"
        for line in wanted
        if line["pool"] == heading[1]
    ]
    rest = [text for n, text in enumerate(lines) if n >= where and n not in own]
    return "".join([*lines[:where], *texts, *rest])


def _server(text: str) -> str | None:
    line = LINE.match(text.rstrip("\n"))
    return line["server"] if line else None
