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


# A line of this length is a document, not a sentence: of one the beginning says enough.
MOST_CHARACTERS = 1000
_KEPT_CHARACTERS = 200


def without_documents(text: str) -> str:
    """The same text, each line that is too long for a person cut short."""
    return "\n".join(map(_cut, text.split("\n")))


def _cut(line: str) -> str:
    if len(line) <= MOST_CHARACTERS:
        return line
    return f"{line[:_KEPT_CHARACTERS]} ... ({len(line)} characters)"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()
