"""Commands that run many times in each deploy import little: a host compiles what they import."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.samples import ROOT
from tests.unit.helper_modules import helper_module

jobs, main = helper_module("jobs"), helper_module("__main__")
FUNCTIONS = {**jobs.KINDS, **jobs.SWITCHES, "settle": jobs.settle_activation,
             "settle bench": jobs.settle_bench}  # fmt: skip
# Rooms of jobs themselves.
HEAVY = ("bench", "checks", "engines", "fit", "nvidia", "packets", "server", "weights")
LISTED = "import json, sys; import corral_host.{}; print(json.dumps(list(sys.modules)))"


def imported(name: str) -> set[str]:
    """Names of all modules that a new process has after the import of one."""
    done = subprocess.run(
        [sys.executable, "-c", LISTED.format(name)], check=True, capture_output=True, text=True,
        env={"PYTHONPATH": str(ROOT / "files")},
    )  # fmt: skip
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_function_of_each_kind_of_job_is_there(name: str) -> None:
    function: Callable[..., Any] = FUNCTIONS[name]
    found = inspect.getclosurevars(function).nonlocals
    assert callable(getattr(helper_module(found["module"]), found["function"]))


@pytest.mark.parametrize("command", sorted(main.WITH_DOCUMENT))
def test_the_function_of_each_command_is_there(command: str) -> None:
    name, function = main.WITH_DOCUMENT[command]
    assert callable(getattr(helper_module(name), function))


def test_starting_and_polling_a_job_imports_no_module_of_its_kind() -> None:
    rooms = {name.split(".")[1] for name in imported("jobs") if name.startswith("corral_host.")}
    assert rooms.isdisjoint(HEAVY)
    assert "corral_host.release.build" not in imported("jobs")
