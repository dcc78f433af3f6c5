"""New keys of an instance: staged, declined, put in place, reverted; and what verify says."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab import hosts
from tests.lab.clones import INVENTORY, clone
from tests.lab.conftest import converge
from tests.lab.switching import (
    FOLDER,
    HELPER,
    HOST,
    JOB,
    NAME,
    SPARE,
    UNIT,
    Switch,
    drop_in,
    two_generations,
)
from tests.lab.test_switching import IS_NEW
from tests.lab.untouched import said
from tests.lab.waiting import job_log, wait_for, wait_on
from tests.lab.workspace import Done, Workspace

LONG = f"{HOST}/{NAME}"
ALL = ("-i", INVENTORY)
KEYS = "/etc/corral/keys"
ACTIVE, WAITS = f"{KEYS}/{NAME}", f"{KEYS}/.staged/{NAME}"
LEFT = f"ls -A {KEYS}/.staged {KEYS}/.before 2>/dev/null | grep {NAME}"
LOADED = f"/run/credentials/{UNIT}/api-keys"
# Wide enough for the tables; a dumb terminal would have 80 columns.
WIDE = {"TERM": "xterm", "COLUMNS": "300"}
HANGS = "ExecStartPost=+/bin/kill -STOP $MAINPID"
# The key of a request is read from standard input, so that no command line holds it.
ASK = "curl --silent --output /dev/null --write-out '%{http_code}' --header @- "
ASK += "http://127.0.0.1:8002/v1/models"


@pytest.fixture
def fleet(deployed_once: Workspace) -> Iterator[Workspace]:
    """A converged lab; these tests break its first host alone, which the plain deploy repairs."""
    yield deployed_once
    converge(deployed_once, "--limit", HOST)


def key_of(lab: Workspace) -> str:
    """The key in the store."""
    return lab.layout.keys.joinpath(HOST, NAME).read_text().splitlines()[-1]


def answers(lab: Workspace, key: str) -> str:
    """The status of a request with this key."""
    return lab.on(HOST, f"{ASK} <<'END'\nAuthorization: Bearer {key}\nEND")


def serves(lab: Workspace, key: str, refused: str) -> None:
    """One key is accepted, the other is not, once the server answers."""
    wait_for(lambda: answers(lab, key) == "200", "the server answers")
    assert answers(lab, refused) == "401"


@contextmanager
def rotated(lab: Workspace) -> Iterator[tuple[str, str]]:
    """Put a new key into the store until the block ends; yields the old and the new one."""
    path, before = lab.layout.keys.joinpath(HOST, NAME), key_of(lab)
    text = path.read_text()
    made = lab.corral("keys", "new", LONG, "--replace", *ALL)
    assert made.returncode == 0, said(made)
    try:
        yield before, key_of(lab)
    finally:
        path.write_text(text)


def declined(lab: Workspace, state: Path) -> Done:
    """`corral rollout` on a terminal, whose question is answered with no."""
    arguments = ["rollout", INVENTORY, "--limit", HOST, "--state", str(state)]
    command = [str(lab._program("corral")), *arguments]
    done = subprocess.run(
        ["script", "--quiet", "--return", "--command", " ".join(command), "/dev/null"], input="n\n",
        cwd=lab.path, env=lab._environment() | WIDE, text=True,
        check=False, capture_output=True,
    )  # fmt: skip
    return Done.of(done)


def rows(lab: Workspace) -> dict[str, dict[str, Any]]:
    """Check -> row of `corral verify`."""
    done = lab.corral("verify", LONG, "--json", *ALL)
    found: list[dict[str, Any]] = json.loads(done.stdout)["checks"][HOST]
    return {row["check"]: row for row in found}


def failed(lab: Workspace) -> list[str]:
    return [name for name, row in rows(lab).items() if not row["ok"]]


def settled(lab: Workspace) -> None:
    """No activation is unfinished, and no keys are staged."""
    gone = f"test ! -e {FOLDER}/activating.json && ! {LEFT}"
    wait_on(lab, HOST, gone, "all is settled")


def test_a_declined_rotation_is_read_by_no_start_and_the_next_rollout_brings_it(
    fleet: Workspace, tmp_path: Path
) -> None:
    other = clone(fleet, tmp_path, keys_folder=str(tmp_path / "store"))
    assert other.corral("keys", "adopt", *ALL).returncode == 0
    with rotated(fleet) as (old, new):
        done = declined(fleet, tmp_path / "state")
        assert done.returncode == 1, said(done)
        assert "its keys are to be replaced" in said(done)
        assert "nothing was changed; staged generations stay" in said(done)
        assert fleet.on(HOST, f"stat --format '%a %U' {WAITS}") == "600 root"
        restarted = fleet.corral("restart", LONG, *ALL)
        assert restarted.returncode == 0, said(restarted)
        serves(fleet, old, refused=new)
        fleet.on(HOST, f"kill -KILL {fleet.pid(HOST, NAME)}")
        wait_for(lambda: fleet.pid(HOST, NAME) != 0, "it is started again")
        serves(fleet, old, refused=new)
        power_cut(fleet)
        serves(fleet, old, refused=new)
        assert failed(fleet) == ["keys-stored"]
        assert WAITS in rows(fleet)["keys-stored"]["detail"]
        assert failed(other) == []
        assert f"others wait in {WAITS}" in rows(other)["keys-stored"]["detail"]
        state = str(tmp_path / "state")
        rolled = fleet.corral("rollout", INVENTORY, "--limit", HOST, "-y", "--state", state)
        assert rolled.returncode == 0, said(rolled)
        serves(fleet, new, refused=old)
        settled(fleet)
        assert (failed(fleet), failed(other)) == ([], ["keys-stored"])


def power_cut(lab: Workspace) -> None:
    lab.on(HOST, "touch /run/before")
    hosts.power_cut(lab.layout, 1)
    hosts.boot(lab.layout, 1)
    wait_for(lambda: lab.try_on(HOST, "test ! -e /run/before").returncode == 0, "up again")


@pytest.mark.parametrize("way", ["adopt", "another store deploys", "a deploy"])
def test_what_verify_says_to_type_while_keys_wait_works(
    way: str, fleet: Workspace, tmp_path: Path
) -> None:
    other = clone(fleet, tmp_path, keys_folder=str(tmp_path / "store"))
    assert other.corral("keys", "adopt", *ALL).returncode == 0
    pid = fleet.pid(HOST, NAME)
    with rotated(fleet) as (old, new):
        staged = fleet.deploy("--limit", HOST, "--data", "stage_only=true")
        assert staged.returncode == 0, said(staged)
        assert fleet.on(HOST, f"tail -n 1 {WAITS}") == new
        if way == "adopt":
            assert f"`corral keys adopt {LONG} --replace`" in rows(fleet)["keys-stored"]["detail"]
            assert fleet.corral("keys", "adopt", LONG, "--replace", *ALL).returncode == 0
            assert key_of(fleet) == old
            assert failed(fleet) == []
        who = other if way == "another store deploys" else fleet
        deployed = who.deploy("--limit", HOST)
        assert deployed.returncode == 0, said(deployed)
        assert failed(who) == []
        settled(fleet)
        if way == "a deploy":
            serves(fleet, new, refused=old)
            return
        serves(fleet, old, refused=new)
        # No server was restarted whose keys did not change.
        assert fleet.pid(HOST, NAME) == pid


@pytest.fixture(scope="module")
def staged(deployed_once: Workspace) -> Iterator[Switch]:
    """Two generations on the host."""
    with two_generations(deployed_once) as made:
        yield made


@pytest.fixture
def keys(staged: Switch, fleet: Workspace) -> Iterator[tuple[str, str]]:
    """The old generation serves with the old key, the new key is staged; yields both."""
    wait_for(lambda: staged.serves(staged.old), "the old generation serves")
    with rotated(fleet) as (old, new):
        stage(fleet, new)
        yield old, new


def stage(lab: Workspace, *keys: str) -> None:
    """Stage keys like a deploy."""
    paths = {"key_path": ACTIVE, "unit_path": f"/etc/systemd/system/{UNIT}"}
    document = json.dumps({**paths, "keys": "".join(f"{key}\n" for key in keys)})
    lab.on(HOST, f"{HELPER} key <<'END'\n{document}\nEND")


@contextmanager
def stopped_at(switch: Switch, how: str, where: str) -> Iterator[None]:
    """An activation that is stopped at this step."""
    unit = SPARE if where == "the spare starts" else UNIT
    hangs = f"ExecStartPost=+/bin/sh -c '! grep -q {IS_NEW} || kill -STOP $MAINPID'"
    if where == "confirm":
        switch.start(switch.spec(how, confirm=True))
        wait_for(lambda: switch.phase() == "confirm", "it waits to be confirmed")
        yield
        return
    with drop_in(switch.lab, unit, hangs if unit == UNIT else HANGS):
        switch.start(switch.spec(how))
        wait_for(lambda: "is not ready yet" in job_log(switch.lab, HOST, JOB), "it hangs")
        yield


ENDS = [
    ("in-place", "it starts", "power cut"), ("in-place", "confirm", "power cut"),
    ("side-by-side", "the spare starts", "power cut"), ("side-by-side", "confirm", "power cut"),
    ("side-by-side", "it starts", "power cut"), ("in-place", "confirm", "killed"),
    ("side-by-side", "the spare starts", "killed"),
]  # fmt: skip


@pytest.mark.parametrize(("how", "where", "end"), ENDS)
def test_an_activation_that_ends_at_any_step_leaves_the_keys_of_before(
    how: str, where: str, end: str, staged: Switch, keys: tuple[str, str]
) -> None:
    lab, (old, new) = staged.lab, keys
    with stopped_at(staged, how, where):
        assert lab.on(HOST, f"tail -n 1 {ACTIVE}") == new
        if end == "power cut":
            power_cut(lab)
        else:
            lab.on(HOST, f"systemctl kill --kill-whom=main --signal=KILL corral-job-{JOB}.service")
        settled(lab)
    assert staged.history()[0]["outcome"] == "reverted"
    serves(lab, old, refused=new)
    assert lab.on(HOST, f"cat {LOADED}") == lab.on(HOST, f"cat {ACTIVE}") == old
    assert staged.serves(staged.old)
    assert failed(lab) == ["keys-stored"]


def test_what_was_kept_has_its_keys_after_a_power_cut(
    staged: Switch, keys: tuple[str, str]
) -> None:
    old, new = keys
    assert staged.activate("in-place")["outcome"] == "kept"
    serves(staged.lab, new, refused=old)
    power_cut(staged.lab)
    settled(staged.lab)
    serves(staged.lab, new, refused=old)


def test_a_server_that_crashes_beside_its_successor_has_its_own_keys_in_the_end(
    staged: Switch, keys: tuple[str, str]
) -> None:
    lab, (old, new) = staged.lab, keys
    pid = staged.pid()
    with stopped_at(staged, "side-by-side", "confirm"):
        lab.on(HOST, f"kill -KILL {pid}")
        wait_for(lambda: staged.pid() not in (0, pid), "it is started again")
        lab.on(HOST, f"systemctl kill --kill-whom=main --signal=KILL corral-job-{JOB}.service")
        settled(lab)
    serves(lab, old, refused=new)
    assert staged.serves(staged.old)


def test_keys_go_back_with_a_generation_that_fails_beside_its_server(
    staged: Switch, keys: tuple[str, str]
) -> None:
    lab, (old, new) = staged.lab, keys
    pid = staged.pid()
    with staged.load() as load, drop_in(lab, SPARE, "ExecStartPre=/bin/false"):
        assert staged.activate("side-by-side")["outcome"] == "reverted"
    assert load["bad"] == []
    serves(lab, old, refused=new)
    assert staged.pid() == pid
    settled(lab)


def test_a_new_key_beside_the_old_one_fails_no_request(
    staged: Switch, keys: tuple[str, str]
) -> None:
    lab, (old, new) = staged.lab, keys
    stage(lab, new, old)
    with staged.load() as load:
        report = staged.activate("side-by-side")
    assert (report["outcome"], report["how"]) == ("kept", "side by side")
    assert load["bad"] == []
    assert load["good"] > 0
    assert [answers(lab, key) for key in keys] == ["200", "200"]


def test_an_operators_revert_keeps_the_keys_in_use_and_those_that_wait(
    staged: Switch, keys: tuple[str, str]
) -> None:
    lab, (old, new) = staged.lab, keys
    assert staged.activate("in-place")["outcome"] == "kept"
    stage(lab, old)
    report = staged.revert()
    assert (report["outcome"], staged.serves(staged.old)) == ("kept", True)
    serves(lab, new, refused=old)
    assert lab.on(HOST, f"tail -n 1 {WAITS}") == old
    # A revert to what serves already restarts no server.
    pid = staged.pid()
    assert staged.revert(to=report["to"])["outcome"] == "unchanged"
    assert staged.pid() == pid
