"""All that `corral` prints goes through here: what others wrote cannot command the terminal.

Hosts, servers, their clients and hubs say things that end in tables, errors and logs. Text becomes
printable, once, and is never markup.
"""

from __future__ import annotations

import json
import sys
from typing import IO, Any

import click
from corral_shared.text import printable
from rich.console import Console
from rich.table import Table
from rich.text import Text

# A line without an end is passed on in pieces.
_LINE_BYTES = 64 * 1024


def say(text: object, *, err: bool = False, colour: str | None = None) -> None:
    """Print text with a line end."""
    click.secho(printable(text), err=err, fg=colour)


def say_error(error: Exception) -> None:
    """Print an error, red where somebody looks."""
    say(error, err=True, colour="red" if sys.stderr.isatty() else None)


def say_json(document: Any) -> None:
    """Print a document for programs; it is ASCII."""
    click.echo(json.dumps(document, indent=2))


def say_file(text: str) -> None:
    """Print a file as it is; where a person looks, as text."""
    click.echo(printable(text) if sys.stdout.isatty() else text, nl=False)


class Held:
    """What a pipe says before a line, which is not printed until that line has come.

    + waits: whether it is still to come; + text: what came before it, and was not printed
    """

    def __init__(self, until: str) -> None:
        self._until = until
        self._said = ""
        self.waits = True

    @property
    def text(self) -> str:
        """Without blank ends."""
        return self._said.strip()

    def release(self, line: str) -> str:
        """What of the text and a line more is to be printed now."""
        if not self.waits:
            return line
        if line.strip() == self._until:
            self.waits = False
            said, self._said = self._said, ""
            return said
        self._said += line
        if len(self._said) > _LINE_BYTES:
            # No reason is as long; a login that says so much is listened to.
            said, self._said = self._said, ""
            return said
        return ""


def pass_on(pipe: IO[bytes], *, err: bool, held: Held | None = None) -> None:
    """Print what comes through a pipe, line by line, to its end; ``held``: after a line alone."""
    while line := pipe.readline(_LINE_BYTES):
        text = line.decode(errors="replace")
        if shown := held.release(text) if held else text:
            click.echo(printable(shown), nl=False, err=err)


def coloured(text: object, colour: str) -> Text:
    """Text in a colour, for a table."""
    return plain(text, colour)


def plain(text: object, colour: str = "") -> Text:
    """Text for rich, whatever is in it."""
    return Text(printable(text), style=colour)


class Rows(Table):
    """A table without lines; its cells are text, coloured where it was made so."""

    def __init__(self, *heads: str) -> None:
        super().__init__(*heads, box=None)

    def add(self, *cells: str | Text) -> None:
        """Add a row."""
        self.add_row(*(cell if isinstance(cell, Text) else plain(cell) for cell in cells))


def console(**options: Any) -> Console:
    """A terminal for rich, without markup, emoji codes and guessed colours."""
    return Console(markup=False, emoji=False, highlight=False, **options)


def show(table: Table) -> None:
    """Print a table; as wide as it needs where there is no terminal."""
    width = None if Console().is_terminal else 200
    console(width=width).print(table)
