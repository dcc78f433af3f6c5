"""Which image a lab's hosts start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral.planning.planner import PACKAGES as DEPLOYED
from lab import apt, base_image, platforms
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


def test_each_distribution_has_its_own_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Sources("deb https://m.example bookworm main\n", "")
    monkeypatch.setattr(apt, "debian_sources", lambda: own)
    made: list[list[str]] = []

    def make(argv: list[str], **_: object) -> None:
        made.append(argv)
        next(tmp_path.glob("*.partial")).joinpath("root").mkdir()

    monkeypatch.setattr(base_image, "run", make)
    images = {base_image.ensure(tmp_path, platform=name) for name in ("debian-12", "debian-13")}
    assert len(images) == 2
    default, other = made
    assert "bookworm" in default
    assert "trixie" in other
    assert "apptainer" in next(word for word in other if word.startswith("--include="))
    assert not any("apptainer" in word for word in default)


def test_the_default_image_of_earlier_versions_is_used_again() -> None:
    """Its digest covers the command line, which has nothing new."""
    argv = base_image._argv(Path("ROOT"), [], ["one"], platforms.PLATFORMS[platforms.DEFAULT])  # noqa: SLF001
    assert argv[3] == "--include=one"
    assert not any(word.startswith(("--setup-hook", "--keyring")) for word in argv)
