"""What a chore notes: exit codes, words, and whether two clones say the same."""

from __future__ import annotations

from typing import Any

import pytest

from lab.chaos.desk import Desk
from lab.chaos.operators import Done

GREEN: tuple[str, ...] = ()
RED = ("lab-1/tiny: unit", "lab-2/tiny: unit", "lab-2/tiny: keys-stored")


class Clone:
    """Says these findings."""

    def __init__(self, findings: tuple[str, ...]) -> None:
        self._findings = findings

    def findings(self) -> tuple[str, ...]:
        return self._findings


class Fleet:
    """Its first operator's clone says these findings."""

    def __init__(self, findings: tuple[str, ...] = ()) -> None:
        self.clone = Clone(findings)


def desk(findings: tuple[str, ...] = ()) -> Desk:
    fleet: Any = Fleet(findings)
    return Desk(fleet, {}, {})


@pytest.mark.parametrize(
    ("ours", "theirs", "green", "good", "verified"),
    [
        (GREEN, GREEN, True, True, "both green"),
        (RED, RED, False, True, "both red (keys-stored, unit)"),
        (GREEN, RED, True, False, "NOT THE SAME"),
        (RED, GREEN, False, False, "NOT THE SAME"),
        (RED, RED[:1], False, False, "NOT THE SAME"),
        (RED, RED, True, False, "both red (keys-stored, unit)"),
        (GREEN, GREEN, False, False, "both green"),
    ],
)
def test_two_clones_agree_or_it_is_a_problem(
    ours: tuple[str, ...], theirs: tuple[str, ...], green: bool, good: bool, verified: str
) -> None:
    at, other = desk(ours), Clone(theirs)
    at.agree(green=green, second=other)  # type: ignore[arg-type]
    assert (at.problems == [], at.verified) == (good, [verified])


@pytest.mark.parametrize(
    ("code", "text", "good"),
    [(10, "the\n  golden failed", True), (0, "the golden failed", False), (10, "else", False)],
)
def test_a_command_ends_as_it_must_and_says_why(code: int, text: str, good: bool) -> None:
    at = desk()
    at.judged("rollout", Done(code, text, 1.0), code=10, says="golden failed")
    assert (at.problems == [], at.commands) == (good, [f"rollout: {code}"])
