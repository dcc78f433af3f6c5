"""Files of lab tests go to workers by how long they took, or else by their size."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.lab import order


def items(folder: Path, **sizes: int) -> list[Any]:
    for name, size in sizes.items():
        (folder / f"{name}.py").write_text("x" * size)
    found = [SimpleNamespace(path=folder / f"{name}.py", name=f"{name}-{n}")
             for name in sizes for n in range(2)]  # fmt: skip
    return list(found)


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [
        ({}, ["b", "c", "a"]),
        ({"a.py": 9.0, "b.py": 1.0, "c.py": 5.0}, ["a", "c", "b"]),
        ({"a.py": 9.0, "b.py": 1.0}, ["c", "a", "b"]),
    ],
)
def test_the_longest_file_is_first_with_its_tests_in_order(
    tmp_path: Path, seconds: dict[str, float], wanted: list[str]
) -> None:
    found = items(tmp_path, a=1, b=3, c=2)
    order.longest_first(found, seconds)
    assert [item.name for item in found] == [f"{name}-{n}" for name in wanted for n in range(2)]


def test_what_a_run_measured_is_kept_beside_what_it_did_not(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "seconds.json"
    assert order.kept(path) == {}
    for name, durations in (("a", (1.0, 2.0)), ("b", (4.0,))):
        watch = order.Stopwatch()
        for seconds in durations:
            watch.note(SimpleNamespace(location=(f"tests/{name}.py",), duration=seconds))  # type: ignore[arg-type]
        watch.keep(path)
    assert order.kept(path) == {"a.py": 3.0, "b.py": 4.0}
    path.write_text("half a")
    assert order.kept(path) == {}
