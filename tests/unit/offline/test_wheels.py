"""Wheels of locked requirements, for the Python of a host that is another than this one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.errors import CorralError
from corral.offline.folder import BundleFolder
from corral.offline.product import _closure, _required
from corral.offline.wheels import Target, add_wheels, locked
from tests.samples import ROOT
from tests.wheels import flip, make_wheel, requirement, sha256

HASH = "--hash=sha256:" + "1" * 64
TEXT = f"""\
# comment
always==1.0 \\
    {HASH} \\
    --hash=sha256:{"2" * 64}
old-python==1.0 ; python_full_version < '3.12' \\
    {HASH}
new-python==1.0 ; python_full_version >= '3.12' \\
    {HASH}
mac-only==1.0 ; sys_platform == 'darwin' \\
    {HASH}
local==2.0+cpu \\
    {HASH}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[BundleFolder]:
    with BundleFolder.opened(tmp_path / "disk") as found:
        yield found


@pytest.mark.parametrize(("python", "own"), [("3.11", "old-python"), ("3.13", "new-python")])
def test_markers_are_those_of_the_host(python: str, own: str) -> None:
    found = locked(TEXT, Target(python, "2.36"))
    assert {one.pin.partition("==")[0] for one in found} == {"always", "local", own}
    assert found[0].hashes == ("1" * 64, "2" * 64)


def test_pip_is_asked_for_wheels_up_to_the_hosts_c_library() -> None:
    arguments = Target("3.12", "2.17").arguments()
    assert "manylinux_2_17_x86_64" in arguments
    assert "manylinux_2_18_x86_64" not in arguments
    assert Target().arguments() == []


@pytest.mark.slow
def test_wheels_are_downloaded_once_and_only_what_an_earlier_bundle_lacks(
    tmp_path: Path, folder: BundleFolder
) -> None:
    index = tmp_path / "index"
    wheels = [make_wheel(index, name, {f"{name}.py": ""}) for name in ("one", "two")]
    wanted = locked("".join(map(requirement, wheels)), Target("3.12", "2.39"))
    sources = ["--no-index", "--find-links", str(index)]
    first = add_wheels(folder, "wheels", wanted, Target("3.12", "2.39"), sources)
    assert {file.name for file in first} == {f"wheels/{path.name}" for path in wheels}
    # Now nothing would come.
    nowhere = ["--no-index", "--find-links", str(tmp_path / "nowhere")]
    assert {f.sha256 for f in add_wheels(folder, "wheels", wanted, Target(), nowhere)} == {
        f.sha256 for f in first
    }
    with BundleFolder.opened(tmp_path / "second") as second:
        found = add_wheels(second, "wheels", wanted, Target(), nowhere, earlier=first)
        assert {f.sha256 for f in found} == {sha256(path) for path in wheels}
        assert not list(second.path.glob("wheels/*"))


@pytest.mark.slow
def test_a_wheel_with_other_bytes_is_not_taken(tmp_path: Path, folder: BundleFolder) -> None:
    wheel = make_wheel(tmp_path / "index", "one", {"one.py": ""})
    wanted = locked(requirement(wheel), Target())
    flip(wheel)
    with pytest.raises(CorralError, match="(?i)hash"):
        add_wheels(
            folder, "wheels", wanted, Target(), ["--no-index", "--find-links", str(wheel.parent)]
        )
    assert not list(folder.path.glob("wheels/*"))


def test_the_product_has_what_it_requires_and_nothing_of_its_development() -> None:
    names = {one.pin.partition("==")[0] for one in _required(ROOT)}
    assert {"pyinfra", "paramiko", "pydantic-core", "uv"} <= names
    assert not {"mypy", "ruff", "pytest", "matplotlib"} & names
    assert len(names) == len(set(_closure()))
