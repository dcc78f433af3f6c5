"""A generation that fails its gate: the old one serves again, and the reason is reported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from lab import drop_ins
from tests.lab.untouched import assert_refused, said
from tests.lab.waiting import wait_for
from tests.lab.workspace import Done, Workspace

HOST, NAME, UNIT = "lab-1", "tiny-long", "corral-tiny-long.service"
PROFILE = "catalog/profiles/tiny-long.toml"
VALUE = "context_tokens_per_slot = 8192"
NEW = "context_tokens_per_slot = 1024\nready_timeout_seconds = 5"
IS_NEW = f'grep -q "ctx-size 1024" /etc/systemd/system/{UNIT}'
DIES = f"ExecStartPre=+/bin/sh -c '! {IS_NEW}'"
HANGS = f"ExecStartPost=+/bin/sh -c '! {IS_NEW} || kill -STOP $MAINPID'"
FOLDER = f"/var/lib/corral/instances/{NAME}"
ASK = (
    "sed -n '/^[^#]/{s/^/Authorization: Bearer /p;q}' /etc/corral/keys/tiny-long |"
    " curl --silent --fail --max-time 30 --header @- --header 'Content-Type: application/json'"
    """ --data '{"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}'"""
    " http://127.0.0.1:8002/v1/chat/completions"
)


@dataclass(frozen=True)
class Serving:
    """What serves: current link, unit text, command line, and all generations."""

    current: str
    unit: str
    argv: str
    generations: frozenset[str]


@dataclass(frozen=True)
class Failure:
    """A deploy of a generation that fails its gate, and the host before and after."""

    done: Done
    before: Serving
    after: Serving
    pids: tuple[int, int]
    completion: str


def serving(lab: Workspace) -> Serving:
    pid = lab.pid(HOST, NAME)
    return Serving(
        current=lab.on(HOST, f"readlink {FOLDER}/current"),
        unit=lab.on(HOST, f"cat /etc/systemd/system/{UNIT}"),
        argv=lab.try_on(HOST, f"tr '\\0' ' ' < /proc/{pid}/cmdline").stdout,
        generations=frozenset(lab.on(HOST, f"ls {FOLDER}/generations").split()),
    )


@contextmanager
def drop_in(lab: Workspace, unit: str, line: str) -> Iterator[None]:
    """Add a line to the unit's [Service], until the block ends or the host loses power."""
    lab.on(HOST, drop_ins.lay([unit], line))
    try:
        yield
    finally:
        lab.on(HOST, drop_ins.lift([unit]))


@pytest.fixture(scope="module", params=[DIES, HANGS], ids=["dies at start", "stays unhealthy"])
def failure(request: pytest.FixtureRequest, deployed_once: Workspace) -> Iterator[Failure]:
    lab = deployed_once
    before, pid = serving(lab), lab.pid(HOST, NAME)
    with drop_in(lab, UNIT, request.param), lab.edited(PROFILE, VALUE, NEW):
        done = lab.deploy()
    after, completion = serving(lab), lab.try_on(HOST, ASK).stdout
    yield Failure(done, before, after, (pid, lab.pid(HOST, NAME)), completion)
    for failed in after.generations - before.generations:
        lab.on(HOST, f"rm -r {FOLDER}/generations/{failed}")


def test_the_deploy_fails_with_the_reason_and_the_servers_last_lines(failure: Failure) -> None:
    text = said(failure.done)
    assert_refused(failure.done, f"Its last lines: [{HOST}]")
    reasons = ("the server died at start (exit-code", "not ready within 5 s")
    assert [reason in text for reason in reasons].count(True) == 1, text
    assert "Invalid API Key" not in text, "these are lines of the old generation"
    assert f"Reverted: generation {failure.before.current[12:]} serves again" in text


def test_the_old_generation_serves_again(failure: Failure) -> None:
    assert '"content"' in failure.completion
    assert failure.after.current == failure.before.current
    assert failure.after.unit == failure.before.unit
    assert failure.after.argv == failure.before.argv
    assert failure.pids[1] not in (0, failure.pids[0])


def test_the_failed_generation_is_kept_for_a_look(failure: Failure, fleet: Workspace) -> None:
    (failed,) = failure.after.generations - failure.before.generations
    unit = fleet.on(HOST, f"cat {FOLDER}/generations/{failed}/unit")
    assert "--ctx-size 1024" in unit


def test_a_deploy_of_the_old_profile_restarts_nothing(failure: Failure, fleet: Workspace) -> None:
    again = fleet.deploy()
    assert again.returncode == 0, said(again)
    assert fleet.pid(HOST, NAME) == failure.pids[1]


WATCHDOG = f"{VALUE}\nwatchdog = {{ every_seconds = 5, answer_seconds = 2, failures = 2 }}"


def verified(lab: Workspace) -> bool:
    return lab.corral("verify", f"{HOST}/{NAME}", "-i", "inventories/lab.py").returncode == 0


def test_a_server_that_hangs_is_restarted_by_its_host(fleet: Workspace) -> None:
    """The watch comes and goes with the profile's watchdog, and restarts nothing by itself."""
    running = fleet.pid(HOST, NAME)
    with fleet.edited(PROFILE, VALUE, WATCHDOG):
        done = fleet.deploy("--limit", HOST)
        assert done.returncode == 0, said(done)
        assert fleet.pid(HOST, NAME) == running
        fleet.on(HOST, f"kill -STOP {running}")
        wait_for(lambda: fleet.pid(HOST, NAME) not in (0, running), "another")
        wait_for(lambda: verified(fleet), "a server that serves")
        entry = fleet.on(HOST, f"journalctl --no-pager --unit={UNIT} --grep 'no completion'")
        assert "restarted (1 of 3 within an hour)" in entry
    done = fleet.deploy("--limit", HOST)
    assert done.returncode == 0, said(done)
    assert "watched-by-corral" not in fleet.on(HOST, "systemctl list-units --all --no-legend")
