"""Which image a lab's hosts start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral.planning.planner import PACKAGES as DEPLOYED
from lab import apt, base_image
from lab.apt import Sources


def test_a_provisioned_image_has_more_packages_and_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apt, "debian_sources", lambda: Sources("deb https://m.example x main", ""))
    made: list[list[str]] = []

    def make(argv: list[str], **_: object) -> None:
        made.append(argv)
        next(tmp_path.glob("*.partial")).joinpath("root").mkdir()

    monkeypatch.setattr(base_image, "run", make)
    bare = base_image.ensure(tmp_path)
    assert base_image.is_ready(tmp_path)
    assert not base_image.is_ready(tmp_path, base_image.PROVISIONED)
    provisioned = base_image.ensure(tmp_path, base_image.PROVISIONED)
    assert bare != provisioned
    assert bare.is_dir()
    first, second = (
        set(word.removeprefix("--include=").split(","))
        for argv in made for word in argv if word.startswith("--include=")
    )  # fmt: skip
    assert second == first | set(DEPLOYED)
    assert "g++" not in first
