"""A driver of a bundle."""

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
