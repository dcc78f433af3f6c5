"""A pinned driver that the package sources of a host do not have."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.unit.helper_modules import helper_module

drivers = helper_module("nvidia.drivers")
commands = helper_module("system.commands")
MADISON = """\
nvidia-open | 590.44.01-1 | https://apt.example.com  Packages
nvidia-open | 590.44.01-1 | https://mirror.example.com  Packages
nvidia-open | 575.57.08-1 | https://apt.example.com  Packages
"""


@pytest.mark.parametrize(
    ("candidate", "madison", "said"),
    [
        ("590.44.01-1", MADISON, "have versions 590.44.01-1, 575.57.08-1."),
        ("(none)", "", "have (none), no version of it."),
    ],
)
def test_a_pinned_version_that_is_gone_is_reported_with_those_that_are_there(
    monkeypatch: pytest.MonkeyPatch, candidate: str, madison: str, said: str
) -> None:
    policy = f"nvidia-open:\n  Installed: (none)\n  Candidate: {candidate}\n"
    monkeypatch.setattr(drivers, "output", lambda *_: policy)
    monkeypatch.setattr(drivers, "run", lambda *_: SimpleNamespace(stdout=madison))
    with pytest.raises(commands.HostError) as caught:
        drivers.refuse_another("nvidia-open", "580.*")
    assert f"nvidia-open 580.* is pinned, the host's package sources {said}" in str(caught.value)
    assert "Next: pin a version that they have in catalog/drivers/" in str(caught.value)
    drivers.refuse_another("nvidia-open", candidate)


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
    monkeypatch.setattr(drivers, "loud", note)
    monkeypatch.setattr(drivers, "run", note)
    monkeypatch.setattr(drivers, "output", policy)
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
