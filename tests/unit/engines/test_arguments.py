"""Every command line that follows from a profile, word for word, as it was when servers started.

A changed word is a new generation: every instance of that engine restarts at its next deploy. The
profiles are copies of those that Corral ships, with two that say all that an engine has.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from corral.catalog.entries import EngineKind
from corral.catalog.profile import Profile
from tests.samples import ROOT
from tests.unit.engine_arguments import KINDS, arguments

DATA = ROOT / "tests" / "data" / "engine-arguments.json"
KNOWN: dict[str, Any] = json.loads(DATA.read_text())
CASES = [(kind, name, gpus) for kind in KINDS for name in KNOWN["profiles"] for gpus in (0, 2)]


@pytest.mark.parametrize(("kind", "name", "gpus"), CASES)
def test_no_word_of_a_command_line_has_changed(kind: EngineKind, name: str, gpus: int) -> None:
    profile = Profile.model_validate(KNOWN["profiles"][name])
    assert arguments(kind, profile, gpus) == KNOWN["arguments"][f"{kind} {name} {gpus}"]
