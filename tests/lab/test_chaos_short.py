"""A short `make chaos`: scenarios of the hard day on one host, without a gateway."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.chaos import controls, scenarios
from lab.chaos.fleet import Fleet
from lab.chaos.phases import OVER
from lab.chaos.play import Player
from tests.lab.workspace import Workspace

SCENARIOS = {one.name: one for one in scenarios.all_scenarios(has_gateway=False)}
CONTROLS = {one.name: one for one in controls.CONTROLS}


@pytest.fixture(scope="module")
def one_host(deployed_once: Workspace) -> Iterator[Fleet]:
    """A fleet of one host; engine releases that the other lab has built are not built again."""
    fleet = Fleet.make(servers=1, gateway=False)
    shutil.copytree(deployed_once.layout.archives, fleet.layout.archives, dirs_exist_ok=True)
    yield fleet
    fleet.remove()


@pytest.fixture(scope="module")
def player(one_host: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Player:
    return Player(one_host, "rollout", tmp_path_factory.mktemp("loads"))


PLAYED = (
    "good-side-by-side",
    "dies-side-by-side",
    "squatter-in-place",
    "power-in-place",
    "killed-in-place-gate",
    "reboot-in-place-checking",
)


@pytest.mark.parametrize("name", PLAYED)
def test_the_host_serves_its_old_or_its_new_generation(player: Player, name: str) -> None:
    rows = [player.play(SCENARIOS[name])]
    # The change is refused before the phase of the fault, as on a busy machine: the fault was not
    # injected, and the rest of the rule must hold.
    if rows[0].wrong and all(OVER in wrong for wrong in rows[0].wrong):
        rows.append(player.play(SCENARIOS[name]))
    assert rows[-1].wrong == (), rows


def test_a_plain_restart_is_seen_to_do_damage(one_host: Fleet, tmp_path: Path) -> None:
    damage = controls.play(one_host, CONTROLS["control-dies"], tmp_path)
    assert "requests failed" in damage.words, damage
