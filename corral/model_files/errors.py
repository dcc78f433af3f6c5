"""Errors of the readers of headers."""

from __future__ import annotations


class BadHeaderError(Exception):
    """An invalid header; the text is one sentence without its full stop."""


class NeedMoreError(Exception):
    """The data ends before the header; the header has ``at_least_bytes``."""

    def __init__(self, at_least_bytes: int) -> None:
        self.at_least_bytes = at_least_bytes
        super().__init__(f"the header has at least {at_least_bytes} bytes")
