"""A pinned package that the package sources of a host do not have."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.unit.helper_modules import helper_module

apt, commands = helper_module("system.apt"), helper_module("system.commands")
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
    monkeypatch.setattr(apt, "output", lambda *_: policy)
    monkeypatch.setattr(apt, "run", lambda *_: SimpleNamespace(stdout=madison))
    with pytest.raises(commands.HostError) as caught:
        apt.refuse_another("nvidia-open", "580.*", "catalog/drivers/")
    assert f"nvidia-open 580.* is pinned, the host's package sources {said}" in str(caught.value)
    assert "Next: pin a version that they have in catalog/drivers/" in str(caught.value)
    apt.refuse_another("nvidia-open", candidate, "catalog/drivers/")
