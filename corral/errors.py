"""Errors for the operator: where, what, and the next step."""

from __future__ import annotations

from corral_shared.text import printable


class CorralError(Exception):
    """A mistake or fault that the operator can act on; never shown as a traceback.

    + where: file and key, or host and instance, such as ``catalog/models/x.toml: quants.Q8_0``
    + what: what is wrong there, in one sentence
    + next_step: what to type or change next

    Each may hold untrusted text, so each is made safe for a terminal here.
    """

    def __init__(self, where: str, what: str, next_step: str) -> None:
        self.where = printable(where)
        self.what = printable(what)
        self.next_step = printable(next_step)
        super().__init__(f"{self.where}: {self.what}\n  Next: {self.next_step}")

    @property
    def in_one_line(self) -> str:
        """What is wrong and the next step, for a row that says where."""
        return f"{self.what}. Next: {self.next_step}"
