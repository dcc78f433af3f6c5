"""Host data as Corral reads it is what pyinfra's own loader gives for the same files."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from corral.inventory.hosts import load_inventory

TWO_GROUPS = """
_shared = {"rack": "inline"}
servers = ([("a", {"own": 1}), "b"], _shared)
canaries = (["b", ("c", {"own": 3})], {"shift": 0})
plain = ["d"]
"""


# In a process of its own: pyinfra's command line patches sockets and threads when imported.
_ASK_PYINFRA = """
import json, sys
from pyinfra.api.state import State
from pyinfra.context import ctx_state
from pyinfra_cli.inventory import make_inventory
found = {}
for cwd, file in json.load(sys.stdin):
    with ctx_state.use(State()):
        hosts = make_inventory(file, cwd=cwd)
    found[file] = {host.name: host.data.dict() for host in hosts}
print(json.dumps(found))
"""

BELOW = "group data beside the inventory and in the working folder"
SCENARIOS: dict[str, tuple[str, dict[str, str]]] = {
    "no group data": (TWO_GROUPS, {}),
    "data for all": (TWO_GROUPS, {"all": "rack = 'all'\nzone = 'z'\nown = 0"}),
    "a group's file against its inline data": (TWO_GROUPS, {"servers": "rack = 'file'"}),
    "a later group against an earlier one": (
        TWO_GROUPS,
        {"servers": "shift = 1\nzone = 's'", "canaries": "zone = 'c'"},
    ),
    "the inventory's own group": (TWO_GROUPS, {"site": "zone = 'site'"}),
    "the inventory's own group against another": (
        TWO_GROUPS,
        {"site": "zone = 'site'", "servers": "zone = 's'"},
    ),
    "a file for a group that is not there": (TWO_GROUPS, {"elsewhere": "zone = 'e'"}),
    "keys of pyinfra in a file": (TWO_GROUPS, {"all": "_sudo = True\nssh_user = 'ops'"}),
    "imports in a file": (TWO_GROUPS, {"all": "from pathlib import Path\nzone = 'z'"}),
    "hosts in a group called all": (
        'all = (["a", "b"], {"zone": "weak"})\nservers = (["a"], {"zone": "s"})',
        {},
    ),
    "all stands last and is weakest": (
        'servers = (["a"], {"zone": "s"})\nall = (["a"], {"zone": "weak"})',
        {},
    ),
    "one host twice": (
        'x = ([("a", {"own": 1, "p": 1})], {"g": 1})\ny = ([("a", {"own": 2})], {"g": 2})',
        {},
    ),
}


def write(folder: Path, text: str, group_data: dict[str, str]) -> Path:
    (folder / "group_data").mkdir(parents=True)
    for group, values in group_data.items():
        (folder / "group_data" / f"{group}.py").write_text(values)
    path = folder / "site.py"
    path.write_text(text)
    return path


@dataclass(frozen=True)
class Case:
    """An inventory, where it is read from, and the data of its hosts as pyinfra has it."""

    cwd: Path
    file: Path
    theirs: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    root = tmp_path_factory.mktemp("precedence")
    files = {name: write(root / name, *scenario) for name, scenario in SCENARIOS.items()}
    pairs = {name: (path.parent, path) for name, path in files.items()}
    below = write(root / "here" / "inventories", "servers = ['a']", {"all": "zone = 'near'"})
    write(root / "here", "", {"all": "zone = 'far'\nrack = 'far'"})
    pairs[BELOW] = (root / "here", below)
    question = json.dumps([(str(cwd), str(file)) for cwd, file in pairs.values()])
    done = subprocess.run(
        [sys.executable, "-c", _ASK_PYINFRA], input=question, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    return {name: Case(cwd, file, found[str(file)]) for name, (cwd, file) in pairs.items()}


@pytest.mark.parametrize("name", [*SCENARIOS, BELOW])
def test_host_data_is_what_pyinfra_gives(
    name: str, cases: dict[str, Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = cases[name]
    monkeypatch.chdir(case.cwd)
    ours = {host.name: host.data for host in load_inventory(case.file)}
    assert ours == case.theirs


def test_host_data_beats_group_data_beats_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = "servers = ([('a', {'x': 'host'})], {'x': 'group', 'y': 'group'})"
    path = write(tmp_path / "site", hosts, {"all": "x = y = z = 'all'"})
    monkeypatch.chdir(tmp_path)
    (found,) = load_inventory(path)
    assert found.data == {"x": "host", "y": "group", "z": "all"}
