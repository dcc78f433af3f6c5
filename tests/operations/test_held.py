"""A deploy while a rollout holds a host: it stops there, unless it belongs to that rollout."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral.host.state import RolloutHere
from tests.operations.fleet import Fleet, asked, bare_host, failed, steps
from tests.samples import EXAMPLES

ANNAS = RolloutHere(by="anna", since="10:00", rollout="r1")


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """One host that a rollout holds, and one that it does not."""
    monkeypatch.chdir(EXAMPLES)
    found = Fleet(tmp_path / "keys", tmp_path / "archives")
    found.add("held", bare_host(found, "held", rollout=ANNAS))
    found.add("free", bare_host(found, "free"))
    for host in found.hosts.values():
        host["stage_only"] = True
    return found


def test_a_host_that_a_rollout_holds_is_left_alone(fleet: Fleet) -> None:
    state = fleet.deploy()
    assert failed(state) == {"held"}
    assert len(asked(state, "held")) == 1
    assert "stage" in steps(state, "free")


def test_the_rollout_itself_stages_there(fleet: Fleet) -> None:
    for host in fleet.hosts.values():
        host["rollout"] = "r1"
    state = fleet.deploy()
    assert failed(state) == set()
    assert steps(state, "held").count("stage") == 2
