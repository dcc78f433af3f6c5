"""Environments of templates are shared, and never serve a text of yesterday."""

from __future__ import annotations

import os
from pathlib import Path

from corral.templating import text_environment


def rendered(templates: Path) -> str:
    return text_environment(templates).get_template("one.j2").render(name="chat")


def test_a_template_is_compiled_once_for_all_instances(tmp_path: Path) -> None:
    (tmp_path / "one.j2").write_text("{{ name }}")
    compiled = text_environment(tmp_path).get_template("one.j2")
    assert text_environment(tmp_path).get_template("one.j2") is compiled


def test_a_changed_template_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "one.j2"
    path.write_text("{{ name }}")
    assert rendered(tmp_path) == "chat"
    path.write_text("it is {{ name }}")
    os.utime(path, (1, 1))
    assert rendered(tmp_path) == "it is chat"


def test_a_filter_is_known_to_those_who_brought_it(tmp_path: Path) -> None:
    assert text_environment(tmp_path, upper=str.upper) is not text_environment(tmp_path)
    assert "yaml" not in text_environment(tmp_path).filters
