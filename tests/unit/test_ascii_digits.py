"""Digits in what is checked are those of ASCII: ``\\d`` has those of every script."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from pydantic import ValidationError

from corral.inventory.hosts import GpuSpec
from tests.samples import ROOT

ARABIC_NINE = "\u0669"


def patterns(path: Path) -> list[str]:
    """Texts that a regular expression is made of: of ``re`` and of fields."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    given = [argument for call in calls if is_of_re(call) for argument in call.args]
    given += [word.value for call in calls for word in call.keywords if word.arg == "pattern"]
    parts = [part for argument in given for part in ast.walk(argument)]
    texts = [part.value for part in parts if isinstance(part, ast.Constant)]
    return [text for text in texts if isinstance(text, str)]


def is_of_re(call: ast.Call) -> bool:
    made = call.func
    return isinstance(made, ast.Attribute) and ast.unparse(made.value) == "re"


@pytest.mark.parametrize("path", sorted((ROOT / "corral").rglob("*.py")), ids=lambda p: p.name)
def test_no_pattern_takes_other_digits(path: Path) -> None:
    assert [text for text in patterns(path) if r"\d" in text] == []


def test_patterns_are_found() -> None:
    assert r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})" in patterns(
        ROOT / "corral" / "fit" / "ranges.py"
    )
    assert r"^[0-9]+\.[0-9]$" in patterns(ROOT / "corral" / "inventory" / "hosts.py")


def test_another_digit_is_refused() -> None:
    fields = {"name": "x", "memory_mib": 1024, "count": 1}
    GpuSpec.model_validate({**fields, "compute_capability": "9.0"})
    with pytest.raises(ValidationError, match="compute_capability"):
        GpuSpec.model_validate({**fields, "compute_capability": f"{ARABIC_NINE}.0"})
