"""A driver from a repository with a key of its own, and from a bundle."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.unit.helper_modules import helper_module

drivers, apt = helper_module("nvidia.drivers"), helper_module("system.apt")


def test_a_driver_of_a_bundle_asks_nobody_for_a_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every program of apt has the bundle's settings, and no key is fetched."""
    ran: list[tuple[str, str | None]] = []

    def note(program: str, *_: object, **__: object) -> SimpleNamespace:
        ran.append((program, os.environ.get("APT_CONFIG")))
        return SimpleNamespace(stdout="", returncode=1)

    def policy(*arguments: str) -> str:
        note(*arguments)
        return "nvidia-open:\n  Candidate: 580.1\n"

    monkeypatch.delenv("APT_CONFIG", raising=False)
    for module in (drivers, apt):
        monkeypatch.setattr(module, "loud", note)
        monkeypatch.setattr(module, "run", note)
    monkeypatch.setattr(apt, "output", policy)
    monkeypatch.setattr(drivers, "driver_packages", lambda _: {})
    file = tmp_path / "apt" / "bundle.conf"
    spec = {
        "files": {str(file): "settings\n"}, "load_modules": False, "persistence": False,
        "install": [{"packages": ["nvidia-open"], "version": "580.*"}],
        "source": {"key_url": "https://keys.example.com/k", "key_fingerprint": "A" * 40},
        "keyring": str(tmp_path / "k.asc"), "apt_config": str(file),
    }  # fmt: skip
    try:
        drivers.set_up(spec)
    finally:
        os.environ.pop("APT_CONFIG", None)
    assert file.read_text() == "settings\n"
    assert {name for name, _ in ran} == {"apt-get", "apt-cache"}
    assert {config for _, config in ran} == {str(file)}


@pytest.mark.parametrize("installs", [True, False])
def test_a_repository_is_added_once_its_key_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, installs: bool
) -> None:
    """Otherwise apt would take no list of any repository until somebody repairs it."""
    commands = helper_module("system.commands")
    right, key, added = "A" * 40, tmp_path / "k.asc", tmp_path / "nvidia.sources"

    def fetch_key(_: str, fingerprint: str, target: str, __: str) -> None:
        if fingerprint != right:
            raise commands.HostError("holds another key")
        Path(target).write_text(fingerprint)

    for name in ("apt_get", "refuse_another"):
        monkeypatch.setattr(drivers, name, lambda *_: None)
    monkeypatch.setattr(drivers, "fetch_key", fetch_key)
    monkeypatch.setattr(drivers, "driver_packages", lambda _: {})
    source = {"key_url": "https://keys.example.com/k", "key_fingerprint": "B" * 40}
    spec = {
        "files": {str(added): "Types: deb\n"}, "load_modules": False, "persistence": False,
        "install": [{"packages": ["nvidia-open"], "version": "580.*"}] if installs else [],
        "source": source, "keyring": str(key),
    }  # fmt: skip
    with pytest.raises(commands.HostError, match="holds another key"):
        drivers.set_up(spec)
    assert not added.exists()
    drivers.set_up({**spec, "source": {**source, "key_fingerprint": right}})
    assert (key.read_text(), added.read_text()) == (right, "Types: deb\n")
