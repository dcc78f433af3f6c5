"""Make text from outside safe for a terminal or a log."""

from __future__ import annotations


def printable(text: object) -> str:
    """The text, with characters that a terminal could interpret replaced by escapes.

    Line ends and tabs stay. Control, format (bidi) and surrogate characters become
    escapes such as \\x1b.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else _escaped(c) for c in str(text))


def printable_line(text: object) -> str:
    """The printable text in one line."""
    return " ".join(printable(text).split())


# A longer line is a document, not a sentence; its beginning is enough.
MOST_CHARACTERS = 1000
_KEPT_CHARACTERS = 200


def without_documents(text: str) -> str:
    """The text, with lines cut that are too long for a person."""
    return "\n".join(map(_cut, text.split("\n")))


def _cut(line: str) -> str:
    if len(line) <= MOST_CHARACTERS:
        return line
    return f"{line[:_KEPT_CHARACTERS]} ... ({len(line)} characters)"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()


def counted(number: int, noun: str) -> str:
    """A number and its noun, which takes an s for more than one: "1 host", "3 hosts"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
