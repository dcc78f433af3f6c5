"""All output of `corral`, made safe for a terminal.

Text from hosts, servers, their clients and hubs ends in tables, errors and logs. It becomes
printable here, once, and is never read as markup.
"""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from typing import IO, Any

import click
from corral_shared.text import printable
from rich.console import Console
from rich.table import Table
from rich.text import Text

# A line without an end is copied in pieces.
_LINE_BYTES = 64 * 1024


def echo(text: object, *, err: bool = False, colour: str | None = None) -> None:
    """Print text with a line end."""
    click.secho(printable(text), err=err, fg=colour)


def echo_error(error: Exception) -> None:
    """Print an error to stderr, red on a terminal."""
    echo(error, err=True, colour="red" if sys.stderr.isatty() else None)


def echo_json(document: Any) -> None:
    """Print a document as JSON, in ASCII."""
    click.echo(json.dumps(document, indent=2))


def echo_file(text: str) -> None:
    """Print a file unchanged; on a terminal, as printable text."""
    click.echo(printable(text) if sys.stdout.isatty() else text, nl=False)


class HeldOutput:
    """Output of a pipe, held back until a marker line.

    + waits: whether the marker is still to come; + text: the output that is held back
    """

    def __init__(self, until: str) -> None:
        self._until = until
        self._held = ""
        self.waits = True

    @property
    def text(self) -> str:
        """The held output without surrounding whitespace."""
        return self._held.strip()

    def release(self, line: str) -> str:
        """Take the next line; return the text that may be printed now."""
        if not self.waits:
            return line
        if line.strip() == self._until:
            self.waits = False
            held, self._held = self._held, ""
            return held
        self._held += line
        if len(self._held) > _LINE_BYTES:
            # No error message is this long: show the output of a login that prints so much.
            held, self._held = self._held, ""
            return held
        return ""


def copy_output(pipe: IO[bytes], *, err: bool, held: HeldOutput | None = None) -> None:
    """Print the lines of a pipe until its end; ``held``: hold output back until its marker."""
    while line := pipe.readline(_LINE_BYTES):
        text = line.decode(errors="replace")
        if shown := held.release(text) if held else text:
            click.echo(printable(shown), nl=False, err=err)


def coloured(text: object, colour: str) -> Text:
    """Text in a colour, for a table."""
    return plain(text, colour)


def plain(text: object, colour: str = "") -> Text:
    """Text for rich, never read as markup."""
    return Text(printable(text), style=colour)


class Rows(Table):
    """A table without rules; its cells are text, coloured or not."""

    def __init__(self, *headings: str) -> None:
        super().__init__(*headings, box=None)

    def add(self, *cells: str | Text) -> None:
        """Add a row."""
        self.add_row(*(cell if isinstance(cell, Text) else plain(cell) for cell in cells))


def console(**options: Any) -> Console:
    """A rich console without markup, emoji codes and guessed colours."""
    return Console(markup=False, emoji=False, highlight=False, **options)


def messages_to_stderr(*, when: bool) -> AbstractContextManager[object]:
    """Send what a block prints to stderr, so that stdout has its document alone."""
    return redirect_stdout(sys.stderr) if when else nullcontext()


def show(table: Table) -> None:
    """Print a table, 200 columns wide where stdout is no terminal."""
    width = None if Console().is_terminal else 200
    console(width=width).print(table)
