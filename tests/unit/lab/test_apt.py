"""Which of a machine's package sources the lab's hosts are given."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral.errors import CorralError
from lab.apt import debian_sources

STANZA = "Types: deb\nURIs: http://mirror.invalid/debian\nSuites: bookworm\nComponents: main\n"
OTHER = "Types: deb\nURIs: http://other.invalid/tools\nSuites: nodistro\nComponents: main\n"


def folder(tmp_path: Path, **files: str) -> Path:
    (tmp_path / "sources.list.d").mkdir()
    for name, text in files.items():
        (tmp_path / "sources.list.d" / name.replace("_", ".")).write_text(text)
    return tmp_path


def test_the_release_is_taken_and_other_sources_are_left(tmp_path: Path) -> None:
    found = debian_sources(folder(tmp_path, all_sources=f"{OTHER}\n{STANZA}"))
    assert found.mirror() == "http://mirror.invalid/debian"
    assert "other.invalid" not in found.stanzas


def test_one_line_entries_are_taken(tmp_path: Path) -> None:
    line = "deb [trusted=yes] http://mirror.invalid/debian bookworm main\n"
    found = debian_sources(folder(tmp_path, all_list=f"# deb comment\n{line}"))
    assert found.lines == line


def test_a_machine_without_the_release_is_told(tmp_path: Path) -> None:
    with pytest.raises(CorralError, match="no Debian entry for bookworm"):
        debian_sources(folder(tmp_path, all_sources=OTHER))


def test_sources_of_another_release_are_derived_from_these(tmp_path: Path) -> None:
    more = STANZA.replace("Suites: bookworm", "Suites: bookworm bookworm-updates")
    security = STANZA.replace("Suites: bookworm", "Suites: bookworm-security")
    own = debian_sources(folder(tmp_path, all_sources=f"{more}\n{security}"))
    assert "Suites: trixie trixie-updates\n" in own.renamed("trixie").stanzas
    assert "Suites: trixie-security\n" in own.renamed("trixie").stanzas
    only = own.only_release().renamed("sid").stanzas
    assert only.count("Suites:") == 1
    assert "Suites: sid\n" in only


def test_one_line_entries_of_another_release(tmp_path: Path) -> None:
    lines = "deb http://m.invalid/d bookworm main\ndeb http://m.invalid/d bookworm-updates main\n"
    own = debian_sources(folder(tmp_path, all_list=lines))
    assert own.only_release().renamed("sid").lines == "deb http://m.invalid/d sid main\n"
    assert own.plus(own.renamed("trixie")).lines.count("trixie") == 2
