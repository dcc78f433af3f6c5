"""Monitoring is put in place, noticed where it differs, and removed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.unit.helper_modules import helper_module

install, monitored = helper_module("monitoring.install"), helper_module("observe.monitored")


@dataclass
class Systemd:
    """The commands that it got, and which units run."""

    said: list[str] = field(default_factory=list)
    running: set[str] = field(default_factory=set)

    def output(self, _: str, *words: str) -> str:
        self.said.append(" ".join(words))
        if words[0] == "restart":
            self.running.add(words[1])
        return ""

    def quiet(self, *words: str) -> None:
        self.said.append(" ".join(words))
        self.running.discard(words[-1])

    def show(self, unit: str, *_: str) -> dict[str, str]:
        runs = unit in self.running
        return {"ActiveState": "active" if runs else "inactive", "UnitFileState": "enabled"}


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> Systemd:
    made = Systemd()
    monkeypatch.setattr(install, "output", made.output)
    monkeypatch.setattr(install, "quiet", made.quiet)
    monkeypatch.setattr(monitored, "show", made.show)
    return made


def plan(folder: Path, **texts: str) -> dict[str, Any]:
    files = {str(folder / "units" / f"{name}.timer"): text for name, text in texts.items()}
    monitoring = {"files": files, "units": [f"{name}.timer" for name in texts]}
    return {"paths": {"state": str(folder / "state")}, "monitoring": monitoring}


def differs(document: dict[str, Any], *missing: str) -> list[str]:
    wanted = document["monitoring"]
    found: list[str] = monitored.monitoring_state(wanted, document["paths"], [*missing])["differs"]
    return found


def apply(document: dict[str, Any]) -> None:
    install.write(document)
    install.start(document)


def test_what_was_applied_is_as_planned_until_somebody_changes_it(
    tmp_path: Path, systemd: Systemd
) -> None:
    document = plan(tmp_path, a="one\n", b="two\n")
    assert differs(document)
    apply(document)
    assert differs(document) == []
    assert differs(document, "prometheus") == ["package prometheus"]
    edited = tmp_path / "units/a.timer"
    edited.write_text("edited\n")
    assert differs(document) == [str(edited)]
    apply(document)
    systemd.running.discard("b.timer")
    assert differs(document) == ["b.timer"]


def test_files_alone_are_not_applied(tmp_path: Path, systemd: Systemd) -> None:
    """A controller that is killed before the start is followed by one that starts."""
    document = plan(tmp_path, a="one\n")
    apply(document)
    changed = plan(tmp_path, a="other\n")
    install.write(changed)
    assert differs(changed) == ["its files and units are not applied"]
    assert systemd.said.count("restart a.timer") == 1
    install.start(changed)
    assert systemd.said.count("restart a.timer") == 2
    assert differs(changed) == []


def test_what_a_plan_no_longer_has_is_removed_even_after_a_kill(
    tmp_path: Path, systemd: Systemd
) -> None:
    apply(plan(tmp_path, a="one\n", b="two\n"))
    smaller = plan(tmp_path, a="one\n")
    assert differs(smaller)
    install.write(smaller)
    install.write(smaller)
    install.start(smaller)
    assert systemd.running == {"a.timer"}
    assert not (tmp_path / "units/b.timer").exists()


def test_monitoring_that_left_the_inventory_is_removed(tmp_path: Path, systemd: Systemd) -> None:
    document = plan(tmp_path, a="one\n")
    nothing = {**document, "monitoring": None}
    assert differs(nothing) == []
    apply(document)
    assert differs(nothing) == ["no longer in the inventory"]
    install.stop(nothing)
    assert differs(nothing) == []
    assert not systemd.running
    assert not (tmp_path / "units/a.timer").exists()


@pytest.mark.parametrize("damage", ["{", "[]", ""])
def test_a_damaged_record_is_applied_again(tmp_path: Path, systemd: Systemd, damage: str) -> None:
    document = plan(tmp_path, a="one\n")
    apply(document)
    monitored.applied_path(document["paths"]).write_text(damage)
    assert differs(document) == ["its files and units are not applied"]
    apply(document)
    assert differs(document) == []
    assert json.loads(monitored.applied_path(document["paths"]).read_text())["units"] == ["a.timer"]
    assert systemd.running == {"a.timer"}
