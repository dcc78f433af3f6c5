"""Faults that a helper reports: in parts, or as text from earlier helpers, shells and Python."""

from __future__ import annotations

import re
from contextlib import suppress

from corral_shared.text import without_documents
from pydantic import ConfigDict, TypeAdapter

from corral.errors import CorralError
from corral.host.reading import UnreadableError, read_answer
from corral.schema import Frozen

_AGAIN = "fix that, then run the same command again"
_TRACEBACK = "Traceback (most recent call last):"
# Earlier helpers wrote the next step as the last sentence of a text.
_LAST_SENTENCE = re.compile(
    r"(?P<what>.*?)\.?\s+Next: (?P<next_step>[^\n]*)(?P<more>.*)", re.DOTALL
)
# How the answer of a command that failed begins (files/corral_host/__main__.py).
FAULT_LINE = '{"fault": {'
_SHOWN_CHARACTERS = 16 * 1024


class Fault(Frozen):
    """A fault on a host (files/corral_host/system/commands.py).

    + where: such as an instance; empty for the host itself
    + next_step: empty where the controller knows it better
    """

    model_config = ConfigDict(extra="ignore")

    where: str = ""
    what: str
    next_step: str = ""

    @property
    def text(self) -> str:
        """The fault and its next step in one line."""
        return f"{self.what}. Next: {self.next_step}" if self.next_step else self.what

    def error(self, where: str, otherwise: str = "") -> CorralError:
        """The fault as an error for the operator.

        + where: host or instance; + otherwise: next step where the helper names none
        """
        what = without_documents(self.what[:_SHOWN_CHARACTERS]).strip()
        step = without_documents(self.next_step[:_SHOWN_CHARACTERS]).strip()
        return CorralError(where, _without(where, what), step or otherwise or _AGAIN)


def _without(where: str, what: str) -> str:
    """Remove ``where`` from the start of a helper's text."""
    return what.removeprefix(f"{where}: ").removeprefix(f"{where} ")


class _Failed(Frozen):
    model_config = ConfigDict(extra="ignore")

    fault: Fault


_FAILED = TypeAdapter(_Failed)


def read_fault(out: str, err: str) -> Fault:
    """The fault of a command that failed, from its standard output, else from its errors.

    The line may be anywhere: where ssh(1) merges both streams, their order is not kept.
    """
    for line in out.splitlines():
        if line.startswith(FAULT_LINE):
            with suppress(UnreadableError):
                return read_answer(_FAILED, line).fault
    return fault_of_text(err)


def fault_of_text(text: str) -> Fault:
    """The fault in text of an earlier helper, a shell or Python."""
    text = text.strip()[:_SHOWN_CHARACTERS]
    if _TRACEBACK in text:
        # The last line of a traceback is its error.
        text = f"its helper failed: {text.splitlines()[-1]}"
    if match := _LAST_SENTENCE.fullmatch(text):
        return Fault(what=match["what"] + match["more"], next_step=match["next_step"])
    return Fault(what=text)
