"""A switch that is ended at any point leaves the old generation or the new one, whole."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.switch_host import (
    GUARD,
    MODULES,
    SPARE,
    UNIT,
    Host,
    HostError,
    Killed,
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
    """The generation that serves, with links that name it and nothing left."""
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
    told = {name: report[name] for name in ("from", "to", "how", "outcome", "serving", "reason")}
    assert told == {
        "from": "a", "to": "b", "how": how, "outcome": "kept", "serving": "b", "reason": "",
    }  # fmt: skip
    assert (report["by"], report["rollout"], report["host"]) == ("anna", "r1", "node-1")
    assert MODULES["history"].history({"state": str(played.root / "state")}) == [report]


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
    # An empty one: free when looked at, taken when the server starts.
    played.obstacles = ["taken by nc", "taken by nc", "", "no such address", "no such address"]
    report = refused(played)
    assert (report["outcome"], report["serving"], whole(played)) == ("reverted", "a", "a")
    assert played.steps.count(f"restart {UNIT}") == 3


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
    # Started at the end all the same: systemd goes on trying for a while.
    assert played.steps.count(f"restart {UNIT}") == 1 + starts


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
    # One that failed its gate is waited for by nobody.
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


def killed_at(number: int, host: Host, end: str) -> bool:
    """Whether an activation gets to this step; there it is killed, and settled."""
    host.die_at = number
    try:
        activate(host.spec("b"), "anna")
    except Killed:
        if end == "reboot":
            MODULES["holding"].BOOT_ID.write_text("another boot\n")
            host.reboot()
            # Before it is enabled a guard does nothing, and the next activation writes it anew.
            for path in host.units.glob(f"{GUARD}.*"):
                assert not (host.folder / "activating.json").exists()
                path.unlink()
        elif host.settle():
            assert list((host.root / "run").iterdir()) == []
        return True
    return False


@pytest.mark.parametrize("end", ["kill", "reboot"])
@pytest.mark.parametrize("how", HOWS)
def test_killed_at_any_step_old_or_new_serve_whole(
    how: str, end: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, number, goes_on = [], 0, True
    while goes_on:
        with monkeypatch.context() as patch:
            folder = tmp_path_factory.mktemp("host")
            (folder / "boot").write_text("a boot\n")
            patch.setattr(MODULES["holding"], "BOOT_ID", folder / "boot")
            host = play(folder, patch)
            choose(patch, how)
            goes_on = killed_at(number, host, end)
            served.append(whole(host))
        number += 1
    assert len(served) > 10
    assert set(served) == {"a", "b"}
    # Once it is decided it stays decided.
    assert served == sorted(served, key=str)


@pytest.mark.parametrize("bad", [(), ("=b",)])
@pytest.mark.parametrize("how", HOWS)
def test_with_a_disk_that_is_full_from_any_write_on_old_or_new_serve_whole(
    how: str,
    bad: tuple[str, ...],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outcomes = []
    for number in range(100):
        with monkeypatch.context() as patch:
            host = play(tmp_path_factory.mktemp("host"), patch)
            choose(patch, how)
            host.bad, host.writes, host.full_from = bad, 0, number
            try:
                report = activate(host.spec("b"), "anna")
            except HostError as fault:
                report = fault.answer
            serves = whole(host)
        assert serves == report["serving"], (number, report)
        outcomes.append(report["outcome"])
        if host.writes <= number:
            break
    assert outcomes[0] == "refused"
    assert outcomes[-1] == ("reverted" if bad else "kept")
    assert len(outcomes) > 5


def test_what_was_settled_is_not_settled_again(
    played: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, "side by side")
    played.die_at = 12
    with pytest.raises(Killed):
        activate(played.spec("b"), "anna")
    report = played.settle()
    assert report is not None
    assert (report["outcome"], report["by"]) == ("reverted", "anna")
    assert "interrupted" in report["reason"]
    assert played.settle() is None


def test_an_unfinished_activation_is_settled_before_the_next(
    played: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, "in place")
    played.die_at = 10
    with pytest.raises(Killed):
        activate(played.spec("b"), "anna")
    played.die_at = None
    assert activate(played.spec("b"), "ben")["outcome"] == "kept"
    told = MODULES["history"].history({"state": str(played.root / "state")})
    assert [(one["by"], one["outcome"]) for one in told] == [("ben", "kept"), ("anna", "reverted")]


@pytest.mark.parametrize("since", [1, 2], ids=["before", "while it is taken back"])
def test_at_a_shutdown_nothing_is_judged(
    since: int, played: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def stopping() -> None:
        asked.append(1)
        if len(asked) >= since:
            raise MODULES["start_again"].GoingDownError("the host is going down")

    choose(monkeypatch, "in place")
    played.bad = ("=a", "=b")
    monkeypatch.setattr(MODULES["way_back"], "refuse_going_down", stopping)
    with pytest.raises(MODULES["start_again"].GoingDownError):
        activate(played.spec("b"), "anna")
    assert (played.folder / "activating.json").exists()
    assert f"{GUARD}.service" in played.enabled
    assert MODULES["history"].history({"state": str(played.root / "state")}) == []
    assert f"{SPARE}" not in played.running


def test_an_operators_revert_goes_to_the_generation_before(
    played: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, "in place")
    activate(played.spec("b"), "anna")
    spec = {**played.spec("b"), "instance": "chat", "to": None}
    report = MODULES["step_back"].step_back(spec, "ben")
    assert (report["from"], report["to"], report["outcome"]) == ("b", "a", "kept")
    assert whole(played) == "a"
    with pytest.raises(HostError, match="generation z is not whole here.*choose one of a, b"):
        MODULES["step_back"].step_back({**spec, "to": "z"}, "ben")
