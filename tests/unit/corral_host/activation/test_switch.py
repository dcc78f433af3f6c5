"""A failed switch leaves the old generation whole; a successful one leaves the new one."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.switch_host import (
    MODULES,
    UNIT,
    Host,
    HostError,
    choose,
    play,
    played,
)

__all__ = ["played"]
activate = MODULES["activate"].activate
HOWS = ("in place", "side by side")


def refused(host: Host, **changes: Any) -> dict[str, Any]:
    """The report of an activation that fails."""
    with pytest.raises(HostError) as fault:
        activate(host.spec("b", **changes), "anna")
    report: dict[str, Any] = fault.value.answer
    return report


def whole(host: Host) -> str | None:
    """The serving generation, with links that name it and no leftovers."""
    assert host.left() == []
    link = host.folder / "current"
    now = host.serving()
    if now:
        assert link.readlink().name == now
    return now


@pytest.mark.parametrize("how", HOWS)
def test_a_good_generation_is_kept(how: str, played: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    choose(monkeypatch, how)
    report = activate(played.spec("b", rollout="r1"), "anna")
    assert whole(played) == "b"
    assert (played.folder / "previous").readlink().name == "a"
    assert json.loads((played.folder / "receipt.json").read_text())["generation"] == "b"
    fields = {name: report[name] for name in ("from", "to", "how", "outcome", "serving", "reason")}
    assert fields == {
        "from": "a", "to": "b", "how": how, "outcome": "kept", "serving": "b", "reason": "",
    }  # fmt: skip
    assert (report["by"], report["rollout"], report["host"]) == ("anna", "r1", "node-1")
    assert MODULES["history"].history({"state": str(played.root / "state")}) == [report]


@pytest.mark.parametrize(("how", "most"), [("in place", 3), ("side by side", 5)])
def test_systemd_reloads_once_for_all_files_of_a_step(
    how: str, most: int, played: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reload reads all units of the host and runs all generators."""
    choose(monkeypatch, how)
    activate(played.spec("b"), "anna")
    steps = [step.split() for step in played.steps]
    linked = [n for n, step in enumerate(steps) if step[0] in ("enable", "disable")]
    assert [steps[n] for n in linked if "--no-reload" not in steps[n]] == []
    reloads = [n for n, step in enumerate(steps) if step == ["daemon-reload"]]
    assert len(reloads) <= most
    # What systemd says about the unit is read from its files after they were linked.
    assert max(n for n in linked if steps[n][-1] == UNIT) + 1 in reloads


@pytest.mark.parametrize(
    ("bad", "after"),
    [
        ((), (False, True)),
        (("=b",), (True, False)),
        # Its spare is healthy, but the server at its own port is not.
        ((f"=b\n{UNIT}",), (True, False)),
    ],
)
def test_one_that_moves_side_by_side_is_reached_where_it_was_until_it_is_kept(
    bad: tuple[str, ...],
    after: tuple[bool, bool],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = play(tmp_path, monkeypatch, b=8051)
    choose(monkeypatch, "side by side")
    host.bad = bad
    seen: list[tuple[bool, bool]] = []
    host.watch = lambda: seen.append((host.reached(8001), host.reached(8051)))
    with contextlib.suppress(HostError):
        activate(host.spec("b"), "anna")
    assert whole(host) == ("b" if after[1] else "a")
    host.watch()
    course = [now for now, before in zip(seen, [None, *seen], strict=False) if now != before]
    proved = [] if bad == ("=b",) else [(True, True)]
    assert course == list(dict.fromkeys([(True, False), *proved])) + ([after] if proved else [])


@pytest.mark.parametrize("bad", [False, True])
def test_an_edited_unit_file_is_put_back_under_a_server_that_goes_on(
    bad: bool, played: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, "without a restart")
    server, file = played.running[UNIT], played.units / UNIT
    file.write_text(file.read_text() + "# edited\n")
    played.enabled.discard(UNIT)
    if bad:
        played.bad = ("=a",)
        with pytest.raises(HostError):
            activate(played.spec("a"), "anna")
    else:
        assert activate(played.spec("a"), "anna")["outcome"] == "kept"
        receipt = json.loads((played.folder / "receipt.json").read_text())
        assert receipt["invocation"] == server.invocation
    assert played.running[UNIT] is server
    assert whole(played) == "a"
    assert UNIT in played.enabled
    assert not [step for step in played.steps if step in (f"restart {UNIT}", f"stop {UNIT}")]


@pytest.mark.parametrize("how", HOWS)
def test_the_same_generation_is_started_again_as_with_other_keys(
    how: str, played: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, how)
    before = played.running[UNIT]
    assert activate(played.spec("a"), "anna")["outcome"] == "kept"
    assert whole(played) == "a"
    assert played.running[UNIT] is not before
    assert not (played.folder / "previous").exists()


def test_how_an_activation_would_go_is_told_and_nothing_is_touched(
    played: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    foresee = MODULES["activate"].foresee
    choose(monkeypatch, "side by side")
    assert foresee(played.spec("b")) == {"how": "side by side", "obstacles": [], "faults": []}
    found = [HostError("no room", "stop another"), OSError("no port")]
    monkeypatch.setattr(MODULES["preconditions"], "findings", lambda _: (found, []))
    assert foresee(played.spec("b")) == {
        "how": None,
        "obstacles": ["no room. Next: stop another", "no port"],
        "faults": [
            {"where": "", "what": "no room", "next_step": "stop another"},
            {"where": "", "what": "no port", "next_step": ""},
        ],
    }

    def fault(_: object) -> None:
        raise HostError("no revert")

    monkeypatch.setattr(MODULES["preconditions"], "served_before", fault)
    assert foresee(played.spec("b")) == {
        "how": None, "obstacles": ["no revert"],
        "faults": [{"where": "", "what": "no revert", "next_step": ""}],
    }  # fmt: skip
    assert played.steps == []
    assert whole(played) == "a"


def test_the_way_back_is_what_was_staged_not_what_was_edited(
    played: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, "in place")
    file = played.units / UNIT
    file.write_text(file.read_text() + "# edited\n")
    played.bad = ("=b", "edited")
    assert refused(played)["outcome"] == "reverted"
    assert whole(played) == "a"
    assert "edited" not in file.read_text()


@pytest.mark.parametrize("left", [None, "[Service]\n"], ids=["removed", "replaced"])
def test_a_server_whose_unit_file_names_no_generation_has_a_way_back(
    left: str | None, played: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        MODULES["preconditions"], "decide", lambda _, before, *__: before and "in place"
    )
    (played.folder / "receipt.json").write_text('{"generation": "a"}')
    (played.units / UNIT).unlink()
    if left:
        (played.units / UNIT).write_text(left)
    played.bad = ("=b",)
    assert refused(played)["outcome"] == "reverted"
    assert whole(played) == "a"


@pytest.mark.parametrize(("how", "bad"), [(how, "=b") for how in HOWS])
def test_a_bad_generation_is_taken_back(
    how: str, bad: str, played: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, how)
    played.bad = (bad,)
    (played.folder / "measured.json").write_text("{}")
    before = played.running[UNIT]
    report = refused(played)
    assert (report["outcome"], report["serving"], whole(played)) == ("reverted", "a", "a")
    assert report["log"] == "its last words"
    assert "Reverted: generation a serves again" in report["reason"]
    assert [row["part"] for row in report["revert_gate"]] == ["ready"]
    assert (played.running[UNIT] is before) is (how == "side by side")


def test_where_neither_old_nor_new_serve_it_is_told_once(
    played: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, "in place")
    played.bad = ("=a", "=b")
    report = refused(played)
    assert (report["outcome"], report["serving"]) == ("revert failed", None)
    assert "REVERT FAILED, chat is down on generation a" in report["reason"]
    assert played.left() == []
    assert played.settle() is None
    assert played.steps.count(f"restart {UNIT}") == 2


def test_what_holds_the_port_is_waited_for_on_the_way_back(
    played: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, "in place")
    # The port is free when checked, and taken when the server starts.
    played.obstacles = ["taken by nc", "taken by nc", "", "no such address", "no such address"]
    report = refused(played)
    assert (report["outcome"], report["serving"], whole(played)) == ("reverted", "a", "a")
    assert played.steps.count(f"restart {UNIT}") == 3


def test_a_server_that_never_stopped_is_proved_once_the_host_has_its_address_again(
    played: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cable is pulled in the gate of the new one, beside which the old one goes on."""
    choose(monkeypatch, "side by side")
    before, played.away = played.running[UNIT], 4
    report = refused(played)
    assert (report["outcome"], report["serving"], whole(played)) == ("reverted", "a", "a")
    assert played.running[UNIT] is before
    assert played.away == 0


def test_an_address_that_does_not_come_back_ends_the_wait(
    played: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, "side by side")
    monkeypatch.setattr(MODULES["start_again"], "OBSTACLE_SECONDS", 0.05)
    played.away = 10**9
    assert refused(played)["outcome"] == "revert failed"


@pytest.mark.parametrize(
    ("obstacle", "limit_seconds", "starts"),
    [("taken by nc", 0.05, 1), ("", 300, 3)],
    ids=["seen", "unseen"],
)
def test_a_port_that_stays_taken_ends_the_wait_and_is_told(
    obstacle: str,
    limit_seconds: float,
    starts: int,
    played: Host,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    choose(monkeypatch, "in place")
    monkeypatch.setattr(MODULES["start_again"], "OBSTACLE_SECONDS", limit_seconds)
    played.obstacles = [obstacle] * 500
    report = refused(played)
    assert report["outcome"] == "revert failed"
    assert "couldn't bind" in report["reason"].partition("REVERT FAILED")[2]
    # It is started at the deadline anyway: systemd keeps retrying for a while.
    assert played.steps.count(f"restart {UNIT}") == 1 + starts


@pytest.mark.parametrize("drained", [True, False])
def test_in_place_nobody_is_let_in_before_a_server_is_ready(
    drained: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither at the old nor at the new address, neither in the switch nor in its revert."""
    played = play(tmp_path, monkeypatch, b=8005)
    choose(monkeypatch, "in place")
    seen: list[tuple[str, list[str]]] = []

    def watch() -> None:
        step = played.steps[-1]
        if step.startswith(("stop", "wait for", "gate")) and step.endswith(UNIT):
            rules = played.rules if played.tables else ""
            shut = [port for port in ("8001", "8005") if f"syn tcp dport {port} reject" in rules]
            seen.append((step.removesuffix(f" {UNIT}"), shut))

    played.watch, played.bad = watch, ("=b",)
    refused(played, drained=drained)
    there = [("stop", ["8001", "8005"]), ("wait for", ["8001", "8005"]), ("gate", [])]
    back = [("stop --no-block", ["8001", "8005"]), *there]
    assert seen == [*there, *back]


def test_what_passed_and_is_not_kept_ends_its_requests_first(
    played: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, "in place")

    def unconfirmed(*_: object) -> None:
        played.steps.append("waited in vain")
        raise HostError("the controller did not confirm")

    monkeypatch.setattr(MODULES["in_place"], "confirmed", unconfirmed)
    assert refused(played, drained=True)["outcome"] == "reverted"
    assert whole(played) == "a"
    after = played.steps[played.steps.index("waited in vain") :]
    assert (
        after.index("nft")
        < after.index(f"drain {UNIT}")
        < after.index(f"kill --signal=KILL {UNIT}")
    )
    # A server that failed its gate is not drained.
    played.bad = ("=b",)
    played.steps.clear()
    refused(played, drained=True)
    assert played.steps.count(f"drain {UNIT}") == 1


def test_a_server_that_hangs_is_killed_on_the_way_back(
    played: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, "in place")
    played.bad = ("=b",)
    played.hung = True
    assert refused(played)["outcome"] == "reverted"
    assert whole(played) == "a"
    stopped = played.steps.index(f"stop --no-block {UNIT}")
    assert stopped < played.steps.index(f"kill --signal=KILL {UNIT}")


def test_a_first_generation_that_fails_goes_altogether(
    played: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    (played.units / UNIT).unlink()
    (played.folder / "current").unlink()
    played.running.clear()
    played.enabled.clear()
    choose(monkeypatch, "first")
    played.bad = ("=b",)
    report = refused(played)
    assert (report["outcome"], report["from"], report["serving"]) == ("reverted", None, None)
    assert played.left() == []
    assert list(played.units.iterdir()) == []
    assert not played.running
    assert UNIT not in played.enabled


def test_requests_that_do_not_end_refuse_the_switch_and_the_old_one_never_stops(
    played: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    played.in_flight = 2
    before = played.running[UNIT]
    choose(monkeypatch, "in place")
    report = refused(played)
    assert report["outcome"] == "refused"
    assert "2 requests were still in flight after 1 s. Next: " in report["reason"]
    choose(monkeypatch, "side by side")
    assert refused(played)["outcome"] == "reverted"
    assert played.running[UNIT] is before
    assert whole(played) == "a"
