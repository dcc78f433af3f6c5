"""The package repositories of a host, in both formats of apt."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral.host.state import HostSource
from tests.unit.helper_modules import helper_module

apt = helper_module("nvidia.apt_sources")
DEB822 = """\
# A comment.
Types: deb deb-src
URIs: http://mirror.example.com/debian
Suites: trixie trixie-updates
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQ==
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
Enabled: no
URIs: http://off.example.com
Suites: trixie
Components: main

Types: deb-src
URIs: http://source.example.com
Suites: trixie
Components: main
"""
LINES = """\
deb [arch=amd64 signed-by=/k.gpg trusted=yes] https://one.example.com trixie main # comment
# deb https://off.example.com trixie main
deb-src https://source.example.com trixie main
deb https://two.example.com /
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "sources.list.d").mkdir()
    monkeypatch.setattr(apt, "FOLDER", tmp_path)
    return tmp_path


def found() -> list[HostSource]:
    return [HostSource.model_validate(one) for one in apt.apt_sources()]


def test_a_host_may_have_none(folder: Path) -> None:
    (folder / "sources.list.d").rmdir()
    assert found() == []


def test_both_formats_are_read(folder: Path) -> None:
    (folder / "sources.list.d/debian.sources").write_text(DEB822)
    (folder / "sources.list.d/corral-nvidia.sources").write_text(DEB822)
    (folder / "sources.list").write_text(LINES)
    one, two, three, four = found()
    assert one == HostSource(uri="https://one.example.com", suite="trixie", components=("main",),
                             signed_by="/k.gpg", trusted=True)  # fmt: skip
    assert (two.uri, two.suite, two.components) == ("https://two.example.com", "/", ())
    assert [three.suite, four.suite] == ["trixie", "trixie-updates"]
    assert three.components == ("main", "contrib")
    assert three.signed_by.splitlines()[1:3] == [" -----BEGIN PGP PUBLIC KEY BLOCK-----", " ."]
    assert not three.trusted
