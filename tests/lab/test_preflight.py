"""Blocking findings are reported for all hosts at once, before any change on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.lab.extra_host import extra_host
from tests.lab.untouched import assert_refused, look, said
from tests.lab.workspace import Done, Workspace

# Port 8002 will be tiny-long's.
STRANGER = "systemd-run --quiet --unit=stranger python3 -m http.server 8002 --bind 127.0.0.1"
LISTENS = "timeout 20 sh -c 'until ss -Hltn sport = :8002 | grep -q .; do sleep 0.1; done'"
SMALL_DISK = "mkdir -p /var/lib/corral && mount -t tmpfs -o size=20m tmpfs /var/lib/corral"
CONFIG = "mkdir -p /etc/llama.cpp && touch /etc/llama.cpp/config.ini"


@dataclass(frozen=True)
class Refusal:
    """A deploy over a bare host with three findings and a converged one with one finding.

    + pids: of a stopped instance, after the refusal and after a deploy without those hosts
    """

    done: Done
    before: dict[str, str]
    after: dict[str, str]
    pids: tuple[int, int] = (0, 0)


@pytest.fixture(scope="module")
def bare(deployed_once: Workspace) -> Iterator[str]:
    with extra_host(deployed_once, 4) as host:
        yield host


@pytest.fixture(scope="module")
def refusal(deployed_once: Workspace, bare: str) -> Iterator[Refusal]:
    lab = deployed_once
    for script in (SMALL_DISK, CONFIG, STRANGER, LISTENS):
        lab.on(bare, script)
    lab.on("lab-2", CONFIG)
    lab.on("lab-1", "systemctl stop corral-tiny-long")
    before = look(lab, bare, "lab-2")
    done = lab.deploy()
    after, pid = look(lab, bare, "lab-2"), lab.pid("lab-1", "tiny-long")
    lab.deploy("--data", "without_failed=true")
    yield Refusal(done, before, after, (pid, lab.pid("lab-1", "tiny-long")))
    lab.on("lab-2", "rm -r /etc/llama.cpp")
    lab.on(bare, "systemctl stop stranger; rm -r /etc/llama.cpp; umount /var/lib/corral")


def test_all_findings_of_all_hosts_are_told_in_one_run(refusal: Refusal, bare: str) -> None:
    assert_refused(
        refusal.done,
        f"[{bare}] tiny-long: port 8002 is taken by stranger.service",
        f"[{bare}] /etc/llama.cpp/config.ini exists",
        f"[{bare}] /var/lib/corral: 3.0 GiB needed, 0.0 GiB free",
        "[lab-2] /etc/llama.cpp/config.ini exists",
    )
    assert refusal.done.returncode == 1


def test_a_host_with_findings_is_left_as_it_was(refusal: Refusal) -> None:
    assert refusal.after == refusal.before


def test_hosts_without_findings_change_only_when_told_to_go_on_without_the_others(
    refusal: Refusal, bare: str
) -> None:
    assert f"wave 1 does not start: lab-2, {bare} failed before" in said(refusal.done)
    assert refusal.pids[0] == 0
    assert refusal.pids[1] > 0
    assert "[lab-1] /etc" not in said(refusal.done)
    assert "[lab-3] /etc" not in said(refusal.done)


def test_a_host_without_python_is_told_what_to_install(fleet_less_python: Refusal) -> None:
    assert_refused(fleet_less_python.done, "python3 is missing", "install python3 on the host")
    assert fleet_less_python.after == fleet_less_python.before


@pytest.fixture
def fleet_less_python(deployed_once: Workspace, bare: str) -> Iterator[Refusal]:
    lab = deployed_once
    lab.on(bare, "mv /usr/bin/python3 /usr/bin/python3.away")
    before = look(lab, bare)
    done = lab.deploy("--limit", bare)
    yield Refusal(done, before, look(lab, bare))
    lab.on(bare, "mv /usr/bin/python3.away /usr/bin/python3")


def test_a_mended_host_passes(deployed_once: Workspace, refusal: Refusal) -> None:
    assert "config.ini" in said(refusal.done)
    deployed_once.on("lab-2", "rm /etc/llama.cpp/config.ini")
    again = deployed_once.deploy("--limit", "lab-2")
    assert again.returncode == 0, said(again)
    deployed_once.on("lab-2", "touch /etc/llama.cpp/config.ini")
    once_more = deployed_once.deploy("--limit", "lab-2")
    assert_refused(once_more, "[lab-2] /etc/llama.cpp/config.ini exists")
