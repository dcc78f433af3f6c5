"""Instances on a host that no plan has, found by their folders and units."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.helper_modules import helper_module, program

present = helper_module("instance.present")
GENERATION = "[Unit]\nX-Corral-Generation=abc\n"


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, str]:
    for name in ("chat", "staged"):
        (tmp_path / f"state/instances/{name}/generations/abc").mkdir(parents=True)
    (tmp_path / "state/instances/.removed-gone/generations").mkdir(parents=True)
    units = tmp_path / "units"
    units.mkdir()
    for name in ("chat", "chat-spare", "old", "lonely-spare"):
        (units / f"corral-{name}.service").write_text(GENERATION)
    # Of Corral without a generation, and of somebody else.
    for name in ("guard-chat", "exporter"):
        (units / f"corral-{name}.service").write_text("[Unit]\n")
    return {"state": str(tmp_path / "state"), "units": str(units)}


def test_folders_and_units_name_instances(paths: dict[str, str]) -> None:
    assert present.names(paths) == ["chat", "lonely-spare", "old", "staged"]


def test_those_that_a_plan_lacks_tell_what_they_do(
    paths: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    states = {"corral-old.service": ("active", "enabled"), "corral-staged.service": ("failed", "")}

    def show(unit: str, *_: str) -> dict[str, str]:
        active, at_boot = states.get(unit, ("inactive", "disabled"))
        return {"ActiveState": active, "UnitFileState": at_boot}

    monkeypatch.setattr(present, "show", show)
    assert present.unplanned({"paths": paths, "instances": [{"name": "chat"}]}) == {
        "lonely-spare": {"runs": False, "at_boot": False},
        "old": {"runs": True, "at_boot": True},
        "staged": {"runs": False, "at_boot": False},
    }


def test_a_service_of_somebody_else_that_starts_at_boot_is_strange(
    paths: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("chat", "exporter", "guard-chat", "job-fetch")
    lines = "".join(f"corral-{name}.service enabled enabled\\n" for name in names)
    program(tmp_path / "bin", "systemctl", f'printf "{lines}"')
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    assert present.strange_units(paths) == ["corral-exporter.service"]
