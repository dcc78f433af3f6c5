"""Faults that the stand-in hub injects while a test needs them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from corral.files import write_atomic
from lab.layout import ROOM

FILE_NAME = "faults.json"

Kind = Literal[
    "cut", "flip", "short", "wrong_commit", "status", "slow", "down",
    "html", "text", "endless", "bomb", "linked_size",
]  # fmt: skip

_PARAMETERS: dict[Kind, frozenset[str]] = {
    "cut": frozenset({"after_bytes"}),
    "flip": frozenset({"offset_bytes"}),
    "short": frozenset({"size_bytes"}),
    "wrong_commit": frozenset(),
    "status": frozenset({"code"}),
    "slow": frozenset({"bytes_per_second"}),
    "down": frozenset(),
    "html": frozenset(),
    "text": frozenset({"text"}),
    "endless": frozenset(),
    "bomb": frozenset({"size_bytes"}),
    "linked_size": frozenset({"text"}),
}


class Rule(BaseModel):
    """One fault; the first rule that matches a request and is not used up applies.

    + match: fnmatch pattern on the request's path, without its query; ``*`` crosses slashes
    + kind: ``cut`` closes the connection after `after_bytes` of the body; ``flip`` inverts one bit
      of the file's byte at `offset_bytes`; ``short`` serves a file as if it ended at `size_bytes`;
      ``slow`` sends `bytes_per_second`; ``wrong_commit`` names another commit; ``status`` answers
      `code`; ``down`` closes the connection without an answer. ``cut``, ``flip``, ``short`` and
      ``slow`` match only requests for a file's bytes, ``short`` also those for its metadata.
      Faults of a hostile hub: ``html`` answers with an HTML page, like the login page of a
      network; ``text`` answers `text` in place of a document; ``endless`` sends bytes until
      the client hangs up; ``bomb`` sends `size_bytes`, compressed to a thousandth;
      ``linked_size`` answers `text` as the size of a file
    + times: how many requests it applies to; unlimited when absent
    Raises pydantic.ValidationError if the parameters are not those of the kind.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    match: str = Field(min_length=1)
    kind: Kind
    times: int | None = Field(default=None, ge=1)
    after_bytes: int | None = Field(default=None, ge=0)
    offset_bytes: int | None = Field(default=None, ge=0)
    size_bytes: int | None = Field(default=None, ge=0)
    bytes_per_second: int | None = Field(default=None, ge=1)
    code: Literal[403, 429, 503] | None = None
    text: str | None = None

    @model_validator(mode="after")
    def _parameters_fit_the_kind(self) -> Rule:
        given = self.model_dump(exclude_none=True).keys() - {"match", "kind", "times"}
        wanted = _PARAMETERS[self.kind]
        if given != wanted:
            names = ", ".join(sorted(wanted)) or "no parameters"
            raise ValueError(f"{self.kind} takes {names}; given: {', '.join(sorted(given))}")
        return self


_RULES = TypeAdapter(Annotated[tuple[Rule, ...], Field(strict=False)])


def parse(text: bytes) -> tuple[Rule, ...]:
    """Rules from JSON text; raises pydantic.ValidationError, whose text names the mistake."""
    return _RULES.validate_json(text)


@contextlib.contextmanager
def faults(root: Path, *rules: Rule) -> Iterator[None]:
    """Apply `rules` to the hub that serves `root`, in place of any others, until the block ends."""
    path = root / FILE_NAME
    write_atomic(path, _RULES.dump_json(rules, exclude_none=True), next_step=ROOM)
    try:
        yield
    finally:
        path.unlink()
