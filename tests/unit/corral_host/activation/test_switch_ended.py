"""A switch that is interrupted at any point leaves the old or the new generation, whole."""

from __future__ import annotations

import pytest

from tests.unit.corral_host.activation.test_switch import HOWS, activate, whole
from tests.unit.switch_host import (
    GUARD,
    MODULES,
    SPARE,
    Host,
    HostError,
    Killed,
    choose,
    play,
    played,
)

pytestmark = pytest.mark.slow

__all__ = ["played"]


def killed_at(number: int, host: Host, end: str) -> bool:
    """Kill an activation at a step, and settle it; False if it does not reach the step."""
    host.die_at = number
    try:
        activate(host.spec("b"), "anna")
    except Killed:
        if end == "reboot":
            MODULES["locks"].BOOT_ID.write_text("another boot\n")
            host.reboot()
            # A guard that is not enabled yet does nothing, and the next activation writes it again.
            for path in host.units.glob(f"{GUARD}.*"):
                assert not (host.folder / "activating.json").exists()
                path.unlink()
        elif host.settle():
            assert list((host.root / "run").iterdir()) == []
        return True
    return False


@pytest.mark.parametrize("end", ["kill", "reboot"])
@pytest.mark.parametrize("port", [8001, 8051], ids=["stays", "moves"])
@pytest.mark.parametrize("how", HOWS)
def test_killed_at_any_step_old_or_new_serve_whole(
    how: str,
    port: int,
    end: str,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served, number, goes_on = [], 0, True
    while goes_on:
        with monkeypatch.context() as patch:
            folder = tmp_path_factory.mktemp("host")
            (folder / "boot").write_text("a boot\n")
            patch.setattr(MODULES["locks"], "BOOT_ID", folder / "boot")
            host = play(folder, patch, b=port)
            choose(patch, how)
            goes_on = killed_at(number, host, end)
            served.append(whole(host))
            assert host.reached(port if served[-1] == "b" else 8001)
        number += 1
    assert len(served) > 10
    assert set(served) == {"a", "b"}
    # The decision to keep is final.
    assert served == sorted(served, key=str)


@pytest.mark.parametrize("bad", [(), ("=b",)])
@pytest.mark.parametrize("port", [8001, 8051], ids=["stays", "moves"])
@pytest.mark.parametrize("how", HOWS)
def test_with_a_disk_that_is_full_from_any_write_on_old_or_new_serve_whole(
    how: str,
    port: int,
    bad: tuple[str, ...],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outcomes = []
    for number in range(100):
        with monkeypatch.context() as patch:
            host = play(tmp_path_factory.mktemp("host"), patch, b=port)
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
    found = MODULES["history"].history({"state": str(played.root / "state")})
    assert [(one["by"], one["outcome"]) for one in found] == [
        ("ben", "kept"),
        ("anna", "reverted"),
    ]


@pytest.mark.parametrize("since", [1, 2], ids=["before", "while it is reverted"])
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
    monkeypatch.setattr(MODULES["rollback"], "refuse_going_down", stopping)
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
    report = MODULES["revert"].revert_generation(spec, "ben")
    assert (report["from"], report["to"], report["outcome"]) == ("b", "a", "kept")
    assert whole(played) == "a"
    with pytest.raises(HostError, match="generation z is not whole here.*choose one of a, b"):
        MODULES["revert"].revert_generation({**spec, "to": "z"}, "ben")
