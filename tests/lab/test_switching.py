"""Switches that are kept: no request fails, or only during the gap that the report states."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import hosts
from tests.lab.switching import (
    FOLDER,
    GUARD,
    HELPER,
    HOST,
    JOB,
    NAME,
    SPARE,
    UNIT,
    Switch,
    drop_in,
    moved,
    two_generations,
)
from tests.lab.untouched import said
from tests.lab.waiting import job_log, wait_for
from tests.lab.workspace import Workspace

DIES = "ExecStartPre=/bin/false"
STOP = "kill -STOP $MAINPID"
RESERVED = "nft list table inet served_by_corral | grep sport"
IS_NEW = f'"ctx-size 1024" /etc/systemd/system/{UNIT}'


@pytest.fixture(scope="module")
def staged(deployed_once: Workspace) -> Iterator[Switch]:
    """Two generations on the host."""
    with two_generations(deployed_once) as made:
        yield made


@pytest.fixture
def switch(staged: Switch) -> Iterator[Switch]:
    """The old generation serves at the beginning, and is restored at the end."""
    yield staged
    is_back = staged.serves(staged.old)
    if not is_back:
        staged.revert()
    assert is_back


def back(switch: Switch) -> None:
    """The operator's revert."""
    report = switch.revert()
    assert (report["outcome"], report["serving"]) == ("kept", generation(switch.old))


def generation(plan: dict[str, object]) -> str:
    found = [one for one in plan["instances"] if one["name"] == NAME]  # type: ignore[attr-defined]
    return str(found[0]["generation"])


def test_side_by_side_no_request_fails_there_and_back(switch: Switch) -> None:
    with switch.load() as load:
        report = switch.activate("side-by-side")
        assert (report["outcome"], report["how"], report["gap_seconds"]) == (
            "kept", "side by side", 0.0,
        ), report  # fmt: skip
        assert switch.serves(switch.new)
        back(switch)
    assert load["bad"] == []
    assert load["good"] > 100


def test_in_place_the_gap_is_measured(switch: Switch) -> None:
    with switch.load() as load:
        report = switch.activate("in-place")
    assert (report["outcome"], report["how"], report["reason"]) == ("kept", "in place", "")
    loaded = next(one["seconds"] for one in report["phases"] if one["phase"] == "starting")
    # `make chaos` measures the gap beyond the loading time; here other work runs meanwhile.
    assert report["gap_seconds"] >= loaded > 0
    # The others came in the gap: refused, answered that the model loads, or connected a moment
    # before and never answered.
    assert load["bad"]
    gap = ("Refused", "503", "ConnectionReset")
    assert [fault for fault in load["bad"] if not any(word in fault for word in gap)] == []
    assert switch.serves(switch.new)
    back(switch)


def test_a_bad_spare_costs_the_old_server_nothing(switch: Switch) -> None:
    pid = switch.pid()
    with switch.load() as load, drop_in(switch.lab, SPARE, DIES):
        report = switch.activate("side-by-side")
    assert (report["outcome"], report["serving"]) == ("reverted", generation(switch.old)), report
    assert "the server died at start" in report["reason"]
    assert report["log"]
    assert load["bad"] == []
    assert switch.pid() == pid
    assert switch.history()[0] == report


def test_what_fails_only_on_the_real_port_is_taken_back(switch: Switch) -> None:
    with drop_in(switch.lab, UNIT, f"ExecStartPre=+/bin/sh -c '! grep -q {IS_NEW}'"):
        report = switch.activate("side-by-side")
    assert (report["outcome"], report["serving"]) == ("reverted", generation(switch.old)), report


def test_what_moves_and_fails_only_on_its_new_port_is_missed_by_nobody(switch: Switch) -> None:
    reserved = switch.lab.on(HOST, RESERVED)
    is_moved = f'"port 8052" /etc/systemd/system/{UNIT}'
    fails = f"ExecStartPre=+/bin/sh -c '! grep -q {is_moved}'"
    with moved(switch, 8052) as moving:
        with switch.load() as load, drop_in(switch.lab, UNIT, fails):
            report = moving.activate("side-by-side")
        assert (report["outcome"], report["how"]) == ("reverted", "side by side"), report
        assert load["bad"] == []
        assert load["good"] > 100
        assert switch.lab.on(HOST, RESERVED) == reserved
        report = moving.activate("side-by-side")
        assert (report["outcome"], report["how"]) == ("kept", "side by side"), report
        assert moving.serves(moving.new)
        now = switch.lab.on(HOST, RESERVED)
        assert ("8052" in now, "8002" in now) == (True, False)
        back(switch)
    assert switch.lab.on(HOST, RESERVED) == reserved


def test_confirmed_it_is_kept_and_unconfirmed_it_is_not(switch: Switch) -> None:
    pid, new = switch.pid(), generation(switch.new)
    report = switch.activate("side-by-side", confirm=True, confirm_seconds=2)
    assert report["outcome"] == "reverted"
    assert "the controller did not confirm within 2 s" in report["reason"]
    assert switch.pid() == pid
    late = switch.lab.try_on(HOST, f"{HELPER} confirm {NAME} {new}")
    assert "waits for no confirmation" in said(late)
    switch.start(switch.spec("in-place", confirm=True))
    wait_for(lambda: switch.phase() == "confirm", "the activation waits")
    wrong = switch.lab.try_on(HOST, f"{HELPER} confirm {NAME} {generation(switch.old)}")
    assert wrong.returncode == 1
    assert "true" in switch.lab.on(HOST, f"{HELPER} confirm {NAME} {new}")
    assert switch.ended()["outcome"] == "kept"
    assert switch.serves(switch.new)
    back(switch)


def test_a_stuck_activation_is_settled_by_its_timer(switch: Switch) -> None:
    switch.start(switch.spec("side-by-side", confirm=True))
    wait_for(lambda: switch.phase() == "confirm", "the activation waits")
    lab, timer = switch.lab, f"{GUARD}.timer"
    assert lab.on(HOST, f"systemctl is-active {timer}") == "active"
    lab.on(HOST, f"systemctl kill --kill-whom=main --signal=STOP corral-job-{JOB}.service")
    lab.on(HOST, f"sed -i 's/^OnActiveSec=.*/OnActiveSec=2/' /etc/systemd/system/{timer}")
    lab.on(HOST, f"systemctl daemon-reload && systemctl restart {timer}")
    report = switch.ended()
    assert "the activation was interrupted" in switch.history()[0]["reason"]
    assert report is None or report["outcome"] == "reverted"


def hangs(lab: Workspace) -> bool:
    """Whether the new unit is in place and a request to its server is waiting."""
    last = job_log(lab, HOST, JOB).strip().rpartition("\n")[2]
    return "is not ready yet" in last and lab.try_on(HOST, f"grep {IS_NEW}").returncode == 0


@pytest.mark.parametrize(
    ("how", "off"), [("in-place", "power cut"), ("in-place", "reboot"), ("side-by-side", "reboot")]
)
def test_a_host_that_goes_down_in_a_switch_settles_when_it_is_up(
    how: str, off: str, switch: Switch
) -> None:
    lab, layout = switch.lab, switch.lab.layout
    with drop_in(lab, UNIT, f"ExecStartPost=+/bin/sh -c '! grep -q {IS_NEW} || {STOP}'"):
        switch.start(switch.spec(how))
        wait_for(lambda: hangs(lab), "the new one hangs")
        lab.on(HOST, "touch /run/before")
        if off == "reboot":
            lab.try_on(HOST, "systemctl reboot")
        else:
            hosts.power_cut(layout, 1)
            hosts.boot(layout, 1)
        gone = "test ! -e /run/before && test ! -e"
        wait_for(lambda: lab.try_on(HOST, f"{gone} {FOLDER}/activating.json").returncode == 0, "up")
    report = switch.history()[0]
    assert (report["outcome"], report["serving"]) == ("reverted", generation(switch.old))
    assert "killed, or a reboot" in report["reason"]


def test_another_activation_is_told_who_works_here(switch: Switch) -> None:
    switch.start(switch.spec("side-by-side", confirm=True))
    wait_for(lambda: switch.phase() == "confirm", "the activation waits")
    other = switch.spec("auto")
    other["instance"] = next(i for i in other["instances"] if i["name"] == "tiny-chat")
    switch.start(other, job="activate-tiny-chat")
    told = switch.ended("activate-tiny-chat")
    assert told["outcome"] == "refused"
    assert "anna on desk is activating tiny-long on this host since 2" in told["reason"]
    switch.lab.on(HOST, f"systemctl kill --signal=KILL corral-job-{JOB}.service")
    assert switch.ended()["outcome"] == "reverted"
    assert switch.history()[0]["by"] == "anna on desk"
    # The lock of a dead process is free.
    assert switch.activate("in-place")["outcome"] == "kept"
    back(switch)


def test_what_is_found_before_is_refused_and_touches_nothing(switch: Switch) -> None:
    lab, pid = switch.lab, switch.pid()
    assert switch.activate("in-place")["outcome"] == "kept"
    back(switch)
    pid = switch.pid()
    library = lab.on(HOST, f"ls {switch.new['releases'][0]['folder']}/bin/llama-bench")
    shard = switch.spec("auto")["shards"][0]["path"]
    damages = {
        f"printf x >> {library}": f"truncate -s -1 {library}",
        f"mv {shard}.receipt.json /root": f"mv /root/*.receipt.json {shard}.receipt.json",
    }
    for damage, fix in damages.items():
        lab.on(HOST, damage)
        report = switch.revert()
        lab.on(HOST, fix)
        assert report["outcome"] == "refused", report
        assert "no revert" in report["reason"] or "not" in report["reason"]
        assert switch.pid() == pid
    squatter = "systemd-run --quiet --unit=squatter python3 -m http.server 18002"
    lab.on(HOST, squatter)
    wait_for(lambda: lab.on(HOST, "ss -Hltn sport = :18002") != "", "the squatter listens")
    refused = switch.activate("side-by-side")
    lab.on(HOST, "systemctl stop squatter")
    assert "spare port 18002 is taken by python3" in refused["reason"]
    assert switch.pid() == pid


def test_a_full_disk_stops_no_way_back(switch: Switch) -> None:
    lab, old = switch.lab, switch.pid()
    lab.on(HOST, f"cp -a {FOLDER} /root/instance")
    lab.on(HOST, f"mount -t tmpfs -o size=1m tmpfs {FOLDER} && cp -a /root/instance/. {FOLDER}")
    fill = f"dd if=/dev/zero of={FOLDER}/fill bs=1k 2>&1 | grep -q 'No space left'"
    try:
        lab.on(HOST, fill)
        refused = switch.activate("in-place")
        assert refused["outcome"] == "refused"
        assert "No space left" in refused["reason"]
        assert switch.pid() == old
        lab.on(HOST, f"rm {FOLDER}/fill")
        switch.start(switch.spec("in-place", confirm=True))
        wait_for(lambda: switch.phase() == "confirm", "the activation waits")
        lab.on(HOST, fill)
        lab.on(HOST, f"systemctl kill --signal=KILL corral-job-{JOB}.service")
        report = switch.ended()
        assert (report["outcome"], report["serving"]) == ("reverted", generation(switch.old))
        assert "the history could not be written" in report["reason"]
    finally:
        lab.on(HOST, f"umount {FOLDER} && rm -r /root/instance")
    assert old != switch.pid()


def test_the_log_of_a_job_tells_its_phases(switch: Switch) -> None:
    assert switch.activate("in-place")["outcome"] == "kept"
    log = job_log(switch.lab, HOST, JOB)
    assert [name for name in ("checking", "draining", "starting", "gate") if name not in log] == []
    back(switch)
