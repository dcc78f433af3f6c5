"""What a host can do with images, as preflight reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.helper_modules import helper_module, program

containers = helper_module("runtimes.containers")

PLAN = {"instances": [{"runtime": {"program": "apptainer"}}, {}]}


@pytest.fixture(autouse=True)
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings of a kernel that allows all, and no program."""
    folder = tmp_path / "sys"
    (folder / "user").mkdir(parents=True)
    (folder / "kernel").mkdir()
    (folder / "user/max_user_namespaces").write_text("1000\n")
    monkeypatch.setattr(containers, "KERNEL", folder)
    monkeypatch.setattr(containers, "PROFILES", tmp_path / "profiles")
    found = {p: tmp_path / "bin" / p for p in ("apptainer", "singularity")}
    monkeypatch.setattr(
        containers, "find_program",
        lambda name: str(found[name]) if name in found and found[name].exists() else None,
    )  # fmt: skip
    return folder


def seen() -> dict[str, Any]:
    found: dict[str, Any] = containers.containers(PLAN)
    return found


def test_a_plan_without_images_is_not_looked_at() -> None:
    assert containers.containers({"instances": [{}, {"runtime": {"program": ""}}]}) is None


def test_programs_tell_what_they_are(tmp_path: Path) -> None:
    assert seen()["programs"] == {}
    program(tmp_path / "bin", "apptainer", "echo apptainer version 1.4.5")
    program(tmp_path / "bin", "singularity", "echo singularity-ce version 4.1.1-jammy")
    found = seen()["programs"]
    assert (found["apptainer"]["kind"], found["apptainer"]["version"]) == ("apptainer", "1.4.5")
    assert (found["singularity"]["kind"], found["singularity"]["version"]) == (
        "singularity", "4.1.1",
    )  # fmt: skip


def test_a_link_called_singularity_is_still_apptainer(tmp_path: Path) -> None:
    program(tmp_path / "bin", "singularity", "echo apptainer version 1.4.5")
    assert seen()["programs"]["singularity"]["kind"] == "apptainer"


def test_a_program_that_does_not_run_has_no_version(tmp_path: Path) -> None:
    program(tmp_path / "bin", "apptainer", "exit 1")
    assert seen()["programs"]["apptainer"]["version"] == ""


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("user/max_user_namespaces", "0", "user.max_user_namespaces"),
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone"),
        ("kernel/unprivileged_userns_clone", "1", ""),
        (
            "kernel/apparmor_restrict_unprivileged_userns", "1",
            "kernel.apparmor_restrict_unprivileged_userns",
        ),
        ("kernel/apparmor_restrict_unprivileged_userns", "0", ""),
    ],
)  # fmt: skip
def test_settings_that_forbid_user_namespaces(
    kernel: Path, name: str, value: str, said: str
) -> None:
    (kernel / name).write_text(f"{value}\n")
    assert seen()["user_namespaces"] == said


def test_a_profile_of_apparmor_allows_them(kernel: Path, tmp_path: Path) -> None:
    (kernel / "kernel/apparmor_restrict_unprivileged_userns").write_text("1\n")
    (tmp_path / "profiles").write_text("apptainer (unconfined)\n")
    assert seen()["user_namespaces"] == ""
