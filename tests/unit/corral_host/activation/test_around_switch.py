"""Around a switch: locks, confirmation, phases, history, the decision how, the guard."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.samples import ROOT
from tests.unit.helper_modules import helper_module

pytestmark = pytest.mark.slow

checks, confirming, attempt = (
    helper_module(one)
    for one in ("activation.preconditions", "activation.confirm", "activation.record")
)
guard, history, holding = (
    helper_module(name) for name in ("activation.watchdog", "instance.history", "system.locks")
)
start_again, jobs = helper_module("activation.start_again"), helper_module("jobs")
HostError = helper_module("system.commands").HostError
END = {"address": "127.0.0.1", "port": 8001, "socket": None}
SPARE = {**END, "port": 18001}


def test_a_second_holder_is_told_of_the_first_and_a_dead_one_holds_nothing(tmp_path: Path) -> None:
    path = holding.activate_lock(tmp_path / "state")
    reported = rf"anna is activating chat on this host since 2.* \(pid {os.getpid()}\). Next: wait"
    with (
        holding.held(path, "anna", "activating chat"),
        pytest.raises(HostError, match=reported),
        holding.held(path, "ben", "activating long"),
    ):
        pytest.fail("two hold one lock")
    assert holding.holder_of(path) is None
    with holding.held(path, "ben", "activating long"):
        assert holding.holder_of(path)["by"] == "ben"


def test_a_rollout_holds_the_host_until_its_controller_is_gone(tmp_path: Path) -> None:
    document = {"paths": {"state": str(tmp_path)}, "by": "anna", "rollout": "r1"}
    program = "import sys; from corral_host.__main__ import main; sys.exit(main(sys.argv[1:]))"
    with subprocess.Popen(
        [sys.executable, "-c", program, "hold"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT / "files",
    ) as controller:  # fmt: skip
        assert controller.stdin
        assert controller.stdout
        controller.stdin.write(json.dumps(document) + "\n")
        controller.stdin.flush()
        assert json.loads(next(filter(str.strip, controller.stdout))) == {"held": True}
        holding.refuse_other_rollout(tmp_path, "r1")
        for other in (None, "r2"):
            with pytest.raises(HostError, match="anna is rolling out r1 on this host"):
                holding.refuse_other_rollout(tmp_path, other)
        controller.stdin.write("still here\n")
        controller.stdin.close()
        assert controller.wait(timeout=120) == 0
    holding.refuse_other_rollout(tmp_path, "r2")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in (attempt, confirming):
        monkeypatch.setattr(module, "RUN", tmp_path)
    return tmp_path


def test_only_the_generation_that_waits_is_confirmed_and_only_once(run: Path) -> None:
    with pytest.raises(HostError, match="waits for no confirmation .waiting: none"):
        confirming.confirm("chat", "g1")
    confirming.waiting_file("chat").write_text("g1")
    with pytest.raises(HostError, match="waiting: g1"):
        confirming.confirm("chat", "g2")
    assert confirming.confirm("chat", "g1") == {"confirmed": True}
    assert not confirming.withdraw("chat")
    with pytest.raises(HostError, match="none"):
        confirming.confirm("chat", "g1")
    assert [path.name for path in run.iterdir()] == ["activate-chat.confirmed"]


def test_without_a_word_the_wait_ends(run: Path) -> None:
    with pytest.raises(HostError, match="did not confirm within 0 s"):
        confirming.await_confirmation("chat", "g1", 0)
    assert list(run.iterdir()) == []


def test_a_phase_is_told_with_its_time_and_ends_in_the_report(run: Path) -> None:
    report: dict[str, Any] = {"instance": "chat", "phases": []}
    with attempt.phase(report, "gate", "g1"):
        found = attempt.phase_of("activate-chat")
        assert (found["name"], found["detail"]) == ("gate", "g1")
        assert 0 <= found["seconds"] < 5
    assert [one["phase"] for one in report["phases"]] == ["gate"]
    attempt.forget_phase("activate-chat")
    assert attempt.phase_of("activate-chat") is None
    assert list(run.iterdir()) == []


@pytest.fixture
def named(tmp_path: Path) -> dict[str, Any]:
    folder = tmp_path / "instances" / "chat"
    (folder / "generations" / "g1").mkdir(parents=True)
    (folder / "generations" / "g1" / "unit").write_text("text")
    (folder / "generations" / "g1" / "plan.json").write_text('{"argv": ["s"]}')
    return {"paths": {"state": str(tmp_path)}, "instance": "chat", "generation": "g1"}


def test_a_pin_names_a_generation_until_it_is_forgotten(named: dict[str, Any]) -> None:
    history.pin({**named, "name": "summer-26"})
    assert history.generation(named)["links"] == ["summer-26"]
    for name in ("current", "staged", "a/b", "generations"):
        with pytest.raises(HostError, match="Next: "):
            history.pin({**named, "name": name})
    with pytest.raises(HostError, match="choose one of g1"):
        history.pin({**named, "name": "x", "generation": "g2"})
    assert history.unpin({**named, "name": "summer-26"})["unpinned"] == "g1"
    for name in ("summer-26", "current", "staged"):
        with pytest.raises(HostError, match=f"no pin {name}"):
            history.unpin({**named, "name": name})


def test_the_newest_reports_stay(named: dict[str, Any]) -> None:
    folder = history.instance_folder(named)
    for number in range(history.KEPT_REPORTS + 3):
        history.record(folder, {"at": f"2026-01-01T00:00:{number:03}Z", "to": "g1"})
    reports = history.history(named["paths"])
    assert len(reports) == history.KEPT_REPORTS
    assert reports[0]["at"] == "2026-01-01T00:00:052Z"
    assert history.generation(named)["reports"][0] == reports[0]


def row(needs: int, free: int, own: int) -> dict[str, Any]:
    room = {"own": own, "there": free + own}
    return {"device": "GPU 0", "needs_mib": needs, "there_mib": free + own, "room": room}


@pytest.mark.parametrize(
    ("needs", "free", "own", "fits"),
    [
        (10, 10, 10, True),
        (10, 9, 11, False),
        (10, 10, 9, False),
        (10, 20, 0, True),
        (0, 0, 0, True),
    ],
)
def test_two_fit_beside_each_other_before_and_after(
    needs: int, free: int, own: int, fits: bool
) -> None:
    assert checks.holds_two(row(needs, free, own)) is fits


def decision(monkeypatch: pytest.MonkeyPatch, how: str, **changes: Any) -> str:
    """How an instance switches from generation a to b; ``changes``: of what was found."""
    found: dict[str, Any] = {
        "drained": False, "spare": SPARE, "old": "a", "before": {}, "free": 20, "nft": None,
        "taken": None, "active": "active", "goes_on": False, **changes,
    }  # fmt: skip
    spare = found["spare"] and {"endpoint": found["spare"]}
    plan = {"name": "chat", "unit": "u", "generation": "b", "endpoint": END,
            "activation": {"how": how, "spare": spare}}  # fmt: skip
    before = {"generation": found["old"], "endpoint": {**END, **found["before"]}}
    monkeypatch.setattr(checks, "show", lambda *_: {"ActiveState": found["active"]})
    monkeypatch.setattr(checks, "may_go_on", lambda *_: found["goes_on"])
    monkeypatch.setattr(checks, "holder_of", lambda _: found["taken"])
    monkeypatch.setattr(checks.redirect, "unusable", lambda _: found["nft"])
    rows = [row(10, found["free"], 0)]
    reported: str = checks.decide({"instance": plan, "drained": found["drained"]}, before, rows)
    return reported


AGAINST: dict[str, dict[str, Any]] = {
    "a unix socket": {"spare": None},
    "it moves away from a unix socket": {"before": {"socket": "/run/s"}},
    "clients of ::1 cannot be redirected to 127.0.0.1": {"before": {"address": "::1"}},
    "taken by nc": {"taken": {"program": "nc"}},
    "no room for two on GPU 0": {"free": 19},
    "no nft": {"nft": "no nft"},
}  # fmt: skip


@pytest.mark.parametrize("reason", AGAINST)
def test_what_stands_against_side_by_side_decides(
    reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert decision(monkeypatch, "auto", **AGAINST[reason]) == "in place"
    with pytest.raises(HostError, match=f"{reason}. Next: "):
        decision(monkeypatch, "side-by-side", **AGAINST[reason])


def test_without_anything_against_it_both_serve_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert decision(monkeypatch, "auto") == "side by side"
    # The same generation again, such as with other keys, is switched like another one.
    assert decision(monkeypatch, "auto", old="b") == "side by side"
    # An instance that moves answers at both addresses meanwhile.
    assert decision(monkeypatch, "side-by-side", before={"port": 9}) == "side by side"
    assert decision(monkeypatch, "in-place") == "in place"
    assert decision(monkeypatch, "auto", drained=True) == "in place"
    assert decision(monkeypatch, "side-by-side", drained=True) == "side by side"
    # A server that is down has no clients: it is started the quick way.
    assert decision(monkeypatch, "side-by-side", active="failed") == "in place"
    assert checks.decide({"instance": {}}, None, []) == "first"


@pytest.mark.parametrize("how", ["auto", "in-place", "side-by-side"])
def test_a_server_that_may_go_on_is_not_restarted(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert decision(monkeypatch, how, goes_on=True) == "without a restart"
    assert decision(monkeypatch, how, goes_on=True, active="failed") == "in place"


@pytest.mark.parametrize(
    ("differs", "proved", "goes_on"),
    [
        ([checks.EDITED], "this start", True),
        ([checks.EDITED, checks.STALE, checks.DISABLED], "this start", True),
        ([checks.EDITED], "an earlier start", False),
        ([checks.STALE], None, False),
        ([checks.DISABLED], "an earlier start", True),
        ([checks.GATE], "an earlier start", True),
        ([checks.GATE, checks.EDITED], "an earlier start", False),
        ([checks.DISABLED, "its keys were replaced since it started"], "this start", False),
        ([], "this start", False),
    ],
)
def test_a_server_goes_on_if_it_is_the_one_that_passed_its_gate(
    differs: list[str],
    proved: str | None,
    goes_on: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "receipt.json").write_text(json.dumps({"generation": "a", "invocation": proved}))
    monkeypatch.setattr(checks, "show", lambda *_: {"InvocationID": "this start"})
    monkeypatch.setattr(checks, "instance_state", lambda *_, **__: {"differs": differs})
    monkeypatch.setattr(checks, "changed_parts", lambda _: ["golden"])
    instance = {"unit": "u", "folder": str(tmp_path)}
    tight = [row(10, 5, 10)]
    assert checks.may_go_on(instance, tight) is goes_on
    # Perplexity is measured beside the server, which needs memory for two.
    monkeypatch.setattr(checks, "changed_parts", lambda _: ["perplexity"])
    assert checks.may_go_on(instance, [row(10, 10, 10)]) is goes_on
    assert checks.may_go_on(instance, tight) is False


@pytest.mark.parametrize("shared", [0, 1])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "0.0.0.0"])
def test_a_port_that_another_program_holds_is_an_obstacle(address: str, shared: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
        squatter.bind((address, 0))
        squatter.listen()
        end = {"address": address, "port": squatter.getsockname()[1], "socket": None}
        assert f"port {end['port']} is taken by " in start_again.obstacle(end)
        assert start_again.missing_address(end) is None
    assert start_again.obstacle(end) is None


def test_an_address_that_is_not_there_is_an_obstacle_and_a_unix_socket_has_none() -> None:
    # An address for documentation (RFC 5737), which no machine has.
    away = {"address": "192.0.2.1", "port": 8001, "socket": None}
    assert "Cannot assign requested address" in start_again.obstacle(away)
    assert "Cannot assign requested address" in start_again.missing_address(away)
    for question in (start_again.obstacle, start_again.missing_address):
        assert question({"address": "", "port": None, "socket": "/run/x"}) is None


def test_connections_that_ended_a_moment_ago_are_no_obstacle() -> None:
    with socket.socket() as server, socket.socket() as client:
        # The engines' HTTP library sets it.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        end = {"address": "127.0.0.1", "port": server.getsockname()[1], "socket": None}
        client.connect(server.getsockname())
        # The side that closes first keeps the connection in TIME_WAIT for a minute.
        server.accept()[0].close()
    assert start_again.obstacle(end) is None


@pytest.mark.parametrize("kind", ["activate", "revert", "fetch"])
def test_a_poll_tells_whether_somebody_has_to_settle_it(
    kind: str, named: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = Path(named["paths"]["state"]) / "instances" / "chat"
    instance = {"folder": str(folder)} if kind == "activate" else "chat"
    job = {"kind": kind, "spec": {"paths": named["paths"], "instance": instance}}
    monkeypatch.setattr(jobs, "JOBS", tmp_path / "jobs")
    monkeypatch.setattr(jobs, "is_running", lambda _: False)
    (tmp_path / "jobs" / "activate-chat").mkdir(parents=True)
    assert jobs.poll("activate-chat", 0)["unsettled"] is False
    (tmp_path / "jobs" / "activate-chat" / "job.json").write_text(json.dumps(job))
    assert jobs.poll("activate-chat", 0)["unsettled"] is False
    (folder / "activating.json").write_text("{}")
    assert jobs.poll("activate-chat", 0)["unsettled"] is (kind != "fetch")


def test_a_job_of_a_host_that_goes_down_leaves_the_word_to_the_next_boot(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def going_down(*_: object) -> None:
        raise start_again.GoingDownError("going down")

    monkeypatch.setattr(jobs, "JOBS", tmp_path)
    monkeypatch.setitem(jobs.SWITCHES, "activate", going_down)
    (tmp_path / "j").mkdir()
    (tmp_path / "j" / "job.json").write_text('{"kind": "activate", "spec": {}}')
    assert jobs.run("j") == 1
    assert not (tmp_path / "j" / "result.json").exists()


def test_a_poll_answers_at_once_when_the_controller_is_waited_for(
    run: Path,  # noqa: ARG001 - where it says so
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    looks: list[str] = []
    monkeypatch.setattr(jobs, "JOBS", tmp_path / "jobs")
    monkeypatch.setattr(jobs, "is_running", lambda _: True)

    def wait(_: float) -> None:
        looks.append("waited")
        monkeypatch.setattr(jobs, "POLL_SECONDS", -1)

    monkeypatch.setattr(jobs.time, "sleep", wait)
    monkeypatch.setattr(jobs, "POLL_SECONDS", 3600)
    confirming.waiting_file("chat").write_text("g1")
    jobs.poll("activate-other", 0)
    assert looks
    looks.clear()
    monkeypatch.setattr(jobs, "POLL_SECONDS", 3600)
    assert jobs.poll("activate-chat", 0)["running"]
    assert not looks


def test_the_guard_waits_longer_than_all_that_may_take_long() -> None:
    gate = {"soak_seconds": 100, "speed": None, "perplexity": None}
    times = {"drain_seconds": 1000, "confirm_seconds": 10000}
    after = {"gate": gate, "activation": times, "ready_timeout_seconds": 1}
    quick = guard.limit_seconds(after, "in place")
    assert quick >= 2 * (1 + 100) + 2 * 1000 + 10000 + start_again.OBSTACLE_SECONDS
    slow = {**after, "gate": {**gate, "speed": {"runs": 3}}}
    assert guard.limit_seconds(slow, "in place") > quick
    assert guard.limit_seconds(after, "side by side") > quick
