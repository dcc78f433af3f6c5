"""Cases as data: tests/operations/<module>.<operation>/<sentence>.json, one behaviour a file."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import pytest
from pyinfra_testing.operations import make_operation_tests  # type: ignore[import-untyped]

from tests.operations import cases
from tests.samples import ROOT

HERE = Path(__file__).parent
# These ask the host while a deploy runs, so they have tests of their own:
# tests/operations/test_commands.py, test_gpu.py.
DECIDED_LATER = {"instance.verify", "gpu.restart", "gpu.ready"}
_TOOLS = "pyinfra_testing.operations"

for _folder in sorted(HERE.glob("*.*/")):
    if _folder.is_dir():
        _cases = make_operation_tests("operations", _folder.name, _folder)
        for _name, _double in (("parse_value", cases.read), ("parse_commands", cases.shown)):
            _cases = patch(f"{_TOOLS}.{_name}", _double)(_cases)
        globals()[f"Test_{_folder.name.replace('.', '_')}"] = _cases


def operations() -> list[str]:
    """All of them, as module.operation."""
    found = []
    for path in sorted((ROOT / "operations").glob("[a-z]*.py")):
        module = import_module(f"operations.{path.stem}")
        for name, one in vars(module).items():
            if hasattr(one, "_inner") and one._inner.__module__ == module.__name__:
                found.append(f"{path.stem}.{name}")
    return found


@pytest.mark.parametrize("operation", sorted(set(operations()) - DECIDED_LATER))
def test_an_operation_has_cases_with_and_without_a_change(operation: str) -> None:
    reported = [json.loads(path.read_text()) for path in (HERE / operation).glob("*.json")]
    assert {bool(case["commands"]) for case in reported} == {True, False}


def test_there_are_as_many_cases_that_change_as_that_do_not() -> None:
    reported = [json.loads(path.read_text()) for path in HERE.glob("*.*/*.json")]
    assert len([case for case in reported if case["commands"]]) * 2 >= len(reported)
    assert set(operations()) >= DECIDED_LATER
