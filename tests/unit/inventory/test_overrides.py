"""Overrides that are written into an inventory: where it is safe, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from corral.errors import CorralError
from corral.inventory.hosts import load_inventory
from corral.inventory.overrides import with_overrides

OVERRIDES: dict[str, Any] = {"threads": 8, "tensor_split": None}
ONE = 'servers = [("a", {"instances": [{"name": "x", "profile": "p", "port": 1}]})]\n'


def written(
    folder: Path, text: str, host: str = "a", instance: str = "x", **keys: Any
) -> str | None:
    path = folder / "site.py"
    path.write_text(text)
    return with_overrides(path, host, instance, keys or OVERRIDES)


def test_an_instance_on_one_line_gets_them_there(tmp_path: Path) -> None:
    assert written(tmp_path, ONE) == ONE.replace(
        '"port": 1}', '"port": 1, "overrides": {"threads": 8, "tensor_split": None}}'
    )


def test_an_instance_on_several_lines_gets_another_line(tmp_path: Path) -> None:
    text = """# ä
_A = {
    "instances": [
        {
            "name": "x",  # the first
            "profile": "p",
            "port": 1,
        },
        {"name": "y", "profile": "p", "port": 2},
    ],
}
servers = [("a", _A)]
"""
    found = written(tmp_path, text, threads=8, tensor_overrides=[r"blk\.(1|2)\.ffn=CPU"])
    assert found == text.replace(
        '"port": 1,\n',
        '"port": 1,\n            "overrides": {"threads": 8, '
        "\"tensor_overrides\": ['blk\\\\.(1|2)\\\\.ffn=CPU']},\n",
    )


def test_what_is_overridden_already_is_replaced(tmp_path: Path) -> None:
    text = ONE.replace('"port": 1', '"overrides": {"threads": 2}, "port": 1')
    found = written(tmp_path, text, threads=8)
    assert found == ONE.replace('"port": 1', '"overrides": {"threads": 8}, "port": 1')


def test_many_keys_are_a_line_each(tmp_path: Path) -> None:
    keys: dict[str, Any] = {f"key_{n}": n for n in range(12)}
    found = written(tmp_path, ONE, **keys)
    assert found is not None
    assert '\n    "key_3": 3,\n' in found


@pytest.mark.parametrize(
    "text",
    [
        # One text for two hosts.
        '_X = [{"name": "x", "profile": "p", "port": 1}]\n'
        'servers = [("a", {"instances": _X}), ("b", {"instances": _X})]\n',
        # A name that is no plain text here.
        '_N = "x"\nservers = [("a", {"instances": [{"name": _N, "profile": "p", "port": 1}]})]\n',
        'servers = [("a", {"instances": [dict(name="x", profile="p", port=1)]})]\n',
        # What comes later wins.
        '_I = {"name": "x", "profile": "p", "port": 1}\n_I = {**_I, "overrides": {}}\n'
        'servers = [("a", {"instances": [_I]})]\n',
    ],
)
def test_where_more_or_nothing_would_change_nothing_is_written(text: str, tmp_path: Path) -> None:
    path = tmp_path / "site.py"
    assert written(tmp_path, text) is None
    assert path.read_text() == text
    assert load_inventory(path)[0].spec.instances[0].overrides == {}


def test_of_two_hosts_with_an_instance_of_this_name_the_right_one_changes(tmp_path: Path) -> None:
    text = ONE + ONE.replace("servers", "others").replace('"a"', '"b"')
    found = written(tmp_path, text, "b", "x")
    assert found is not None
    assert found.startswith(ONE)
    assert found.count("overrides") == 1


def test_group_data_beside_the_file_counts(tmp_path: Path) -> None:
    (tmp_path / "group_data").mkdir()
    (tmp_path / "group_data" / "all.py").write_text('hub_url = "http://hub.example.com"\n')
    assert written(tmp_path, ONE) is not None


def test_an_unknown_instance_is_nowhere_and_a_broken_file_is_said(tmp_path: Path) -> None:
    assert written(tmp_path, ONE, "a", "other") is None
    with pytest.raises(CorralError, match="SyntaxError"):
        written(tmp_path, "servers = [")
