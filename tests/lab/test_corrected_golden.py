"""A wrong golden prompt is corrected; later reverts are proved by the corrected one."""

from __future__ import annotations

from tests.lab.test_activation import FOLDER, HOST, NAME, PROFILE, VALUE, serving
from tests.lab.untouched import said
from tests.lab.workspace import Done, Workspace

INSTANCE = f"{HOST}/{NAME}"
OTHER = "context_tokens_per_slot = 2048"


def revert(lab: Workspace) -> Done:
    return lab.corral("revert", INSTANCE, "-i", "inventories/lab.py")


def test_a_corrected_golden_is_the_gate_of_each_later_revert(fleet: Workspace) -> None:
    old = serving(fleet)
    with fleet.edited(PROFILE, VALUE, OTHER):
        with fleet.edited(PROFILE, "exact = 'QX", "exact = 'QY"):
            failed = fleet.deploy("--limit", HOST)
        assert failed.returncode != 0
        assert "golden 0 of 1, limit 1 of 1 replies" in said(failed)
        assert serving(fleet).argv == old.argv
        kept = fleet.deploy("--limit", HOST)
    assert kept.returncode == 0, said(kept)
    new = serving(fleet)
    assert new.current != old.current
    for wanted in (old, new):
        back = revert(fleet)
        assert back.returncode == 0, said(back)
        now = serving(fleet)
        assert (now.current, now.argv) == (wanted.current, wanted.argv)
    assert "QY" not in fleet.on(HOST, f"cat {FOLDER}/current/plan.json")


def test_a_generation_goes_back_by_the_gate_that_it_passed(fleet: Workspace) -> None:
    """Not by a later one: here the golden prompt of the serving generation is made wrong."""
    old, running = serving(fleet), fleet.pid(HOST, NAME)
    with fleet.edited(PROFILE, "exact = 'QX", "exact = 'QY"):
        wrong = fleet.deploy("--limit", HOST)
        # It runs against the serving server, which keeps running; its stored gate stays.
        assert wrong.returncode != 0
        assert "golden 0 of 1, limit 1 of 1 replies" in said(wrong)
        assert fleet.pid(HOST, NAME) == running
        with fleet.edited(PROFILE, VALUE, OTHER):
            failed = fleet.deploy("--limit", HOST)
    assert failed.returncode != 0
    assert f"Reverted: generation {old.current[12:]} serves again" in said(failed)
    now = serving(fleet)
    assert (now.current, now.argv) == (old.current, old.argv)
