"""Cases as data: tests/operations/<module>.<operation>/<sentence>.json, one behaviour a file."""

from __future__ import annotations

from pathlib import Path

from pyinfra_testing.operations import make_operation_tests  # type: ignore[import-untyped]

for _folder in sorted(Path(__file__).parent.glob("*.*/")):
    if _folder.is_dir():
        _cases = make_operation_tests("operations", _folder.name, _folder)
        globals()[f"Test_{_folder.name.replace('.', '_')}"] = _cases
