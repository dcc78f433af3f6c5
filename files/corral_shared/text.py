"""Text from outside, made fit for a terminal or a log."""

from __future__ import annotations


def printable(text: object) -> str:
    """The same text; what a terminal could take for a command is written as an escape.

    Line ends and tabs stay. Control, format (bidi) and surrogate characters become
    escapes such as \\x1b.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else _escaped(c) for c in str(text))


def printable_line(text: object) -> str:
    """The same, in one line."""
    return " ".join(printable(text).split())


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()
