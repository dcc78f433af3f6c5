"""The keys of one file of the store, with what the store knows of each.

The line above a key tells whose it is and since when: ``# key of client NAME, made MOMENT``, and
while it is being rotated out ``, replaced MOMENT``. Servers get the keys alone.
"""

from __future__ import annotations

import hashlib
import re

from pydantic import Field

from corral.schema import Frozen

CLIENT_NAME = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$"
_MOMENT = r"[0-9T:Z-]{10,20}"
_NOTE = re.compile(
    rf"# key(?: of client (?P<client>[A-Za-z0-9][A-Za-z0-9._@-]{{0,63}}))?"
    rf"(?:, made (?P<made>{_MOMENT}))?(?:, replaced (?P<replaced>{_MOMENT}))?"
)


class KeyEntry(Frozen):
    """A key of a file. Never print ``key``.

    + client: "" where nobody named it; + made, replaced: moments, "" where unknown or not replaced
    + notes: other comments above it, of the operator
    """

    key: str = Field(repr=False)
    client: str = ""
    made: str = ""
    replaced: str = ""
    notes: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Twelve digits of its digest, to tell keys apart without showing them."""
        return fingerprint(self.key)

    @property
    def lines(self) -> list[str]:
        """Its lines in the file."""
        of = f" of client {self.client}" if self.client else ""
        made = f", made {self.made}" if self.made else ""
        replaced = f", replaced {self.replaced}" if self.replaced else ""
        note = [f"# key{of}{made}{replaced}"] if of or made or replaced else []
        return [*self.notes, *note, self.key]


def fingerprint(key: str) -> str:
    """Twelve digits of a key's digest."""
    return hashlib.sha256(key.encode()).hexdigest()[:12]


class KeyText(Frozen):
    """A file of the store: its keys, and the comments above the first and below the last."""

    head: tuple[str, ...] = ()
    entries: tuple[KeyEntry, ...] = ()
    tail: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The file."""
        lines = [*self.head, *(line for one in self.entries for line in one.lines), *self.tail]
        return "".join(f"{line}\n" for line in lines)


def read_entries(text: str) -> KeyText:
    """The keys of a file of the store, and its comments; blank lines are dropped."""
    head: tuple[str, ...] | None = None
    entries: list[KeyEntry] = []
    notes: list[str] = []
    known: dict[str, str] = {}
    for line in text.split("\n"):
        if match := _NOTE.fullmatch(line):
            known = {name: value or "" for name, value in match.groupdict().items()}
        elif line.startswith("#"):
            notes.append(line)
        elif line:
            above = () if head is None else tuple(notes)
            head = tuple(notes) if head is None else head
            entries.append(KeyEntry(key=line, notes=above, **known))
            notes, known = [], {}
    return KeyText(head=head or (), entries=tuple(entries), tail=tuple(notes))
