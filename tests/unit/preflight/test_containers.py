"""Preflight of hosts whose instances run in images: one clear finding for what is missing."""

from __future__ import annotations

from typing import Any

import pytest

from corral.preflight.checks import preflight
from tests.samples import CHAT, NOW_SECONDS, bare, plan

BOXED = {**CHAT, "runtime": "apptainer"}
GOOD = {"path": "/usr/bin/apptainer", "kind": "apptainer", "version": "1.4.5", "setuid": False}
HERE = {"programs": {"apptainer": GOOD}, "fuse": True, "squashfuse": True}


def found(data: dict[str, Any] | None = None, **changes: Any) -> list[tuple[str, str]]:
    planned = plan(BOXED, **(data or {}))
    state = bare(planned, containers={**HERE, **changes})
    findings = preflight(planned, state, now_seconds=NOW_SECONDS)
    return [(finding.what, finding.next_step) for finding in findings]


def test_a_host_with_apptainer_is_ready() -> None:
    assert found() == []


def test_a_host_without_images_is_not_asked() -> None:
    planned = plan(CHAT)
    state = bare(planned, containers=None)
    assert preflight(planned, state, now_seconds=NOW_SECONDS) == []


def test_neither_program() -> None:
    ((what, step),) = found(programs={})
    assert "neither apptainer nor singularity" in what
    assert "install" in step


def test_the_other_program() -> None:
    ((what, step),) = found(programs={"singularity": {**GOOD, "kind": "singularity"}})
    assert what == "apptainer is missing, singularity is there"
    assert step == 'set "container_program": "singularity" in the data of the host'


CE = {**GOOD, "kind": "singularity", "version": "4.1.1", "setuid": True}


def test_singularity_serves_without_its_setuid_starter() -> None:
    named = {"container_program": "singularity"}
    assert found(named, programs={"singularity": CE}) == []
    ((what, step),) = found(named, programs={"singularity": {**CE, "version": "4.0.3"}})
    assert what == "singularity 4.0.3 is too old for images"
    assert step == "install singularity 4.1 or later on the host"


def test_a_program_under_the_name_of_the_other_would_get_options_of_the_other() -> None:
    """Packages of apptainer bring a link of that name, too."""
    both = {"singularity": {**GOOD, "path": "/usr/bin/singularity"}, "apptainer": GOOD}
    ((what, step),) = found({"container_program": "singularity"}, programs=both)
    assert what == "singularity is apptainer 1.4.5 there"
    assert step == 'set "container_program": "apptainer" in the data of the host'
    ((what, step),) = found({"container_program": "/opt/ce/run"}, programs={"/opt/ce/run": CE})
    assert what == "/opt/ce/run is singularity 4.1.1 there"
    assert "ends with /singularity" in step


@pytest.mark.parametrize(
    ("setting", "step"),
    [
        ("user.max_user_namespaces", "sysctl user.max_user_namespaces="),
        ("kernel.unprivileged_userns_clone", "sysctl kernel.unprivileged_userns_clone=1"),
        ("kernel.apparmor_restrict_unprivileged_userns", "AppArmor profile"),
    ],
)
def test_no_user_namespaces(setting: str, step: str) -> None:
    ((what, next_step),) = found(user_namespaces=setting)
    assert setting in what
    assert step in next_step


def test_a_setuid_starter_does_not_help() -> None:
    suid = {"apptainer": {**GOOD, "setuid": True}}
    ((what, _),) = found(user_namespaces="user.max_user_namespaces", programs=suid)
    assert "no new privileges" in what


def test_no_fuse_device() -> None:
    ((what, step),) = found(fuse=False)
    assert "/dev/fuse is missing" in what
    assert '"unpack_images": True' in step
    assert found({"unpack_images": True}, fuse=False) == []


def test_an_old_program() -> None:
    ((what, step),) = found(programs={"apptainer": {**GOOD, "version": "1.1.9"}})
    assert what == "apptainer 1.1.9 is too old for images"
    assert "1.2" in step
