"""Errors that a user reads: where, what, and what to type next."""

from __future__ import annotations

from corral_shared.text import printable


class CorralError(Exception):
    """A mistake or a fault that a person can act on; never shown as a traceback.

    + where: file and key, or host and instance, such as ``catalog/models/x.toml: quants.Q8_0``
    + what: one sentence about what is wrong there
    + next_step: what to type or change next

    Each may hold text from outside, so each is made fit for a terminal here.
    """

    def __init__(self, where: str, what: str, next_step: str) -> None:
        self.where = printable(where)
        self.what = printable(what)
        self.next_step = printable(next_step)
        super().__init__(f"{self.where}: {self.what}\n  Next: {self.next_step}")
