"""A clone without the store of keys: no key is replaced, and the keys are adopted by ssh."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.lab.clones import INVENTORY, clone, stored
from tests.lab.observed import pids
from tests.lab.test_secrets import watched
from tests.lab.untouched import LAB, assert_refused, look, said
from tests.lab.workspace import Workspace

ALL = ("-i", INVENTORY)
LONG = "lab-1/tiny-long"


@pytest.fixture
def other(fleet: Workspace, tmp_path: Path) -> Workspace:
    """A clone with an empty store."""
    return clone(fleet, tmp_path, keys_folder=str(tmp_path / "store"))


def verified(lab: Workspace, *names: str) -> bool:
    return lab.corral("verify", *names, *ALL).returncode == 0


def without_locks(looks: dict[str, str]) -> list[str]:
    """Without lock files, whose text changes when a rollout holds hosts before it stages."""
    lines = [line for look in looks.values() for line in look.splitlines()]
    return [line for line in lines if "/locks" not in line]


def test_a_deploy_without_the_store_changes_nothing_and_says_how_to_go_on(
    fleet: Workspace, other: Workspace, tmp_path: Path
) -> None:
    before = look(fleet, *LAB)
    assert_refused(other.deploy(), "`corral keys adopt lab-", "`corral keys new lab-")
    assert look(fleet, *LAB) == before
    assert_refused(other.corral("rollout", INVENTORY, "-y", "--state", str(tmp_path / "state")),
                   "corral keys adopt lab-")  # fmt: skip
    assert without_locks(look(fleet, *LAB)) == without_locks(before)
    assert not (tmp_path / "store").exists()


def test_keys_are_taken_over_and_both_clones_agree(
    fleet: Workspace, other: Workspace, tmp_path: Path
) -> None:
    before, store = pids(fleet), tmp_path / "store"
    wanted = stored(fleet.layout.keys)
    key = wanted[LONG][0]
    assert verified(fleet)
    red = other.corral("verify", LONG, *ALL)
    assert red.returncode == 1
    assert "keys-stored" in said(red)
    with watched(key) as seen:
        adopted = other.corral("keys", "adopt", LONG, *ALL)
        rest = other.corral("keys", "adopt", *ALL)
    for done in (adopted, rest):
        assert done.returncode == 0, said(done)
        assert key not in said(done)
    assert f"{LONG}: is in the store now" in said(adopted)
    assert seen == set()
    found = stored(store)
    assert {name: found[name] for name in found if name in wanted} == found
    files = [path for path in store.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    deployed = other.deploy()
    assert deployed.returncode == 0, said(deployed)
    assert pids(fleet) == before
    assert verified(fleet)
    assert verified(other)


def test_a_controller_that_lost_everything_operates_its_hosts(
    fleet: Workspace, tmp_path: Path
) -> None:
    """No hub, no lock and no store: what runs is reached, and the plan is said to be unknown."""
    other = clone(
        fleet, tmp_path, keys_folder=str(tmp_path / "store"), hub_url="http://127.0.0.1:9"
    )
    (other.path / "corral.lock").unlink()
    generation = fleet.on(
        "lab-1", "basename $(readlink /var/lib/corral/instances/tiny-long/current)"
    )
    status = other.corral("status", LONG, *ALL)
    assert generation in status.stdout
    assert "plan unknown" in status.stdout
    verify = other.corral("verify", LONG, *ALL)
    assert "is compared with its installed generations, not with a plan" in said(verify)
    assert "Next: run `corral lock inventories/lab.py`" in said(verify)
    for words, shown in (
        (("history", LONG), generation),
        (("show", LONG), "now serving"),
        (("logs", LONG), "llama"),
        (("restart", LONG), f"{LONG}: ready"),
        (("stop", LONG), f"{LONG}: stopped"),
        (("start", LONG), f"{LONG}: ready"),
        (("revert", LONG, "--to", generation), generation),
    ):
        done = other.corral(*words, *ALL)
        assert done.returncode == 0, said(done)
        assert shown in said(done)
    assert verified(fleet, LONG)


def test_green_from_one_clone_is_red_from_the_other_while_their_keys_differ(
    fleet: Workspace, other: Workspace, tmp_path: Path
) -> None:
    assert other.corral("keys", "adopt", *ALL).returncode == 0
    assert other.corral("keys", "new", LONG, *ALL).returncode == 1
    made = other.corral("keys", "new", LONG, "--replace", *ALL)
    assert made.returncode == 0, said(made)
    assert (verified(fleet, LONG), verified(other, LONG)) == (True, False)
    deployed = other.deploy("--limit", "lab-1")
    assert deployed.returncode == 0, said(deployed)
    assert (verified(fleet, LONG), verified(other, LONG)) == (False, True)
    refused = fleet.corral("keys", "adopt", LONG, *ALL)
    assert refused.returncode == 1
    assert "--replace" in said(refused)
    assert fleet.corral("keys", "adopt", LONG, "--replace", *ALL).returncode == 0
    assert stored(fleet.layout.keys)[LONG] == stored(tmp_path / "store")[LONG]
    assert (verified(fleet, LONG), verified(other, LONG)) == (True, True)
