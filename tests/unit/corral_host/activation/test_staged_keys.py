"""Keys are staged until their activation, reverted with it, and no start reads them before."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

import pytest

from tests.unit.corral_host.activation.test_switch import HOWS, activate, whole
from tests.unit.helper_modules import helper_module
from tests.unit.switch_host import (
    GUARD,
    MODULES,
    UNIT,
    Host,
    HostError,
    Killed,
    choose,
    play,
    played,
)

pytestmark = pytest.mark.slow

__all__ = ["played"]
staged_keys, instances = helper_module("server.staged_keys"), helper_module("instance.state")
KEYS = {"a": "old", "b": "new"}


def due(host: Host) -> str:
    """What a deploy would compare with the store."""
    text: str = staged_keys.due_path(host.root / "key").read_text()
    return text


def test_staged_keys_are_read_by_no_start_until_their_activation(played: Host) -> None:
    played.stage_keys("new")
    assert (played.keys(), due(played)) == ("old", "new")
    waiting = played.root / ".staged"
    assert stat.S_IMODE(waiting.stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in waiting.iterdir()] == [0o600]


def test_who_takes_a_change_back_before_its_activation_leaves_nothing_to_do(played: Host) -> None:
    played.stage_keys("new")
    played.stage_keys("old")
    assert (played.keys(), due(played)) == ("old", "old")

    assert not (played.root / ".staged/key").exists()


def test_a_file_that_others_can_read_is_closed_while_keys_wait(played: Host) -> None:
    for text in ("new", "old"):
        (played.root / "key").chmod(0o644)
        played.stage_keys(text)
        assert stat.S_IMODE((played.root / "key").stat().st_mode) == 0o600
        assert (played.keys(), due(played)) == ("old", text)


def test_a_new_instance_gets_its_keys_at_once(played: Host) -> None:
    place = {"key_path": str(played.root / "other"), "unit_path": str(played.units / "other")}
    helper_module("activation.staging").write_key(place, "first")
    assert (played.root / "other").read_text() == "first"


@pytest.mark.parametrize("how", HOWS)
def test_they_are_put_in_place_by_it(
    how: str, played: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, how)
    played.stage_keys("new")
    activate(played.spec("b"), "anna")
    assert whole(played) == "b"
    assert (played.keys(), due(played)) == ("new", "new")


@pytest.mark.parametrize("how", [*HOWS, "first"])
def test_they_go_back_with_what_failed(
    how: str, played: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, how)
    played.stage_keys("new")
    played.bad = ("=b",)
    with pytest.raises(HostError):
        activate(played.spec("b"), "anna")
    assert played.keys() == "old"
    assert whole(played) == (None if how == "first" else "a")


@pytest.mark.parametrize("how", HOWS)
def test_what_an_earlier_activation_left_is_no_way_back(
    how: str, played: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, how)
    (played.root / ".before").mkdir()
    (played.root / ".before/key").write_text("ancient")
    played.bad = ("=b",)
    with pytest.raises(HostError):
        activate(played.spec("b"), "anna")
    assert whole(played) == "a"
    assert played.keys() == "old"


@pytest.mark.parametrize("how", HOWS)
def test_a_way_back_that_dies_at_any_step_after_a_boot_goes_on_with_the_keys_of_before(
    how: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, died = 0, True
    while died:
        with monkeypatch.context() as patch:
            folder = tmp_path_factory.mktemp("host")
            (folder / "boot").write_text("a boot\n")
            patch.setattr(MODULES["locks"], "BOOT_ID", folder / "boot")
            host = play(folder, patch)
            host.stage_keys("new")
            choose(patch, how)
            killed_once_prepared(host)
            (folder / "boot").write_text("another boot\n")
            died = dies_while_it_boots(host, number)
            host.settle()
            assert whole(host) == "a"
            assert host.keys() == host.running[UNIT].keys == "old"
        number += 1
    assert number > 3


def test_an_operators_revert_leaves_waiting_keys_waiting(
    played: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, "in place")
    activate(played.spec("b"), "anna")
    played.stage_keys("new")
    MODULES["revert"].revert_generation({**played.spec("b"), "instance": "chat", "to": None}, "ben")
    assert whole(played) == "a"
    assert (played.keys(), due(played)) == ("old", "new")


def killed_once_prepared(host: Host) -> None:
    """Kill an activation when it drains or gates: its keys are in place, its unit is not."""
    asked = host.step

    def step(what: str) -> None:
        if what.startswith(("drain", "gate")):
            host.die_at = len(host.steps)
        asked(what)

    host.step = step  # type: ignore[method-assign]
    with pytest.raises(Killed):
        activate(host.spec("b"), "anna")
    host.step = asked  # type: ignore[method-assign]


def dies_while_it_boots(host: Host, number: int) -> bool:
    """Whether the guard reached this one of its steps."""
    guard = MODULES["rollback"].guard
    die_at = len(host.steps) + number

    def dying(*arguments: str) -> None:
        host.die_at = die_at
        guard(*arguments)

    MODULES["rollback"].guard = dying
    try:
        host.reboot()
    except Killed:
        return True
    finally:
        MODULES["rollback"].guard, host.die_at = guard, None
    return False


def killed_at(number: int, host: Host, end: str) -> bool:
    host.die_at = number
    try:
        activate(host.spec("b"), "anna")
    except Killed:
        if end == "reboot":
            MODULES["locks"].BOOT_ID.write_text("another boot\n")
            host.reboot()
            for path in host.units.glob(f"{GUARD}.*"):
                path.unlink()
        else:
            host.settle()
        return True
    return False


@pytest.mark.parametrize("end", ["kill", "reboot"])
@pytest.mark.parametrize("how", HOWS)
def test_killed_at_any_step_each_generation_has_its_keys(
    how: str, end: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, number, goes_on = [], 0, True
    while goes_on:
        with monkeypatch.context() as patch:
            folder = tmp_path_factory.mktemp("host")
            (folder / "boot").write_text("a boot\n")
            patch.setattr(MODULES["locks"], "BOOT_ID", folder / "boot")
            host = play(folder, patch)
            host.stage_keys("new")
            choose(patch, how)
            goes_on = killed_at(number, host, end)
            serves = whole(host)
            assert serves
            assert host.keys() == KEYS[serves], number
            served.append(serves)
        number += 1
    assert set(served) == {"a", "b"}


@pytest.mark.parametrize("how", HOWS)
def test_with_a_disk_that_is_full_from_any_write_on_each_generation_has_its_keys(
    how: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(100):
        with monkeypatch.context() as patch:
            host = play(tmp_path_factory.mktemp("host"), patch)
            host.stage_keys("new")
            choose(patch, how)
            host.writes, host.full_from = 0, number
            with contextlib.suppress(HostError):
                activate(host.spec("b"), "anna")
            serves = whole(host)
        assert serves
        assert host.keys() == KEYS[serves], number
        if host.writes <= number:
            break
    assert number > 5


def test_a_server_with_keys_that_wait_for_it_does_not_serve_its_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key"
    path.write_text("old")

    def text_of(place: object) -> str:
        return "old" if "credentials" in str(place) else Path(str(place)).read_text()

    monkeypatch.setattr(instances, "digest_or_none", text_of)
    instance = {"key_path": str(path), "unit": "corral-chat.service"}
    assert instances.replaced(instance, os.getpid()) == []
    staged_keys.write(path, "new")
    assert instances.replaced(instance, os.getpid()) == [instances.NEW_KEYS]
    # Also a server that has the staged keys, but would restart with others.
    path.write_text("third")
    staged_keys.staged_path(path).write_text("old")
    assert instances.replaced(instance, os.getpid()) == [instances.KEYS]
