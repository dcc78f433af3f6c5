"""What is lent to aria2's user comes back as root's plain files, or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.helper_modules import helper_module

lending = helper_module("swarm.lent")
receipts = helper_module("weights.receipts")


@pytest.fixture
def lent(tmp_path: Path) -> Any:
    found = lending.Lent(tmp_path / "home")
    found.open()
    return found


def names(lent: Any) -> list[str]:
    return sorted(str(one.relative_to(lent.home)) for one in lent.home.rglob("*"))


def test_what_arrived_is_lent_with_its_record_and_taken_back(lent: Any) -> None:
    staged = lent.home / "a"
    staged.write_bytes(b"x" * 8192)
    (lent.home / "a.aria2").touch()
    assert lent.lend(staged) == lent.folder / "a"
    assert names(lent) == ["swarm", "swarm/a", "swarm/a.aria2"]
    assert receipts.arrived_bytes(staged) == 8192
    lent.restore(staged)
    assert names(lent) == ["a", "a.aria2", "swarm"]
    assert staged.stat().st_mode & 0o777 == 0o644


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_its_user_owns_what_is_lent_and_nothing_that_came_back(lent: Any) -> None:
    staged = lent.home / "a"
    staged.touch()
    lent.give_to(61234)
    place = lent.lend(staged)
    assert (place.stat().st_uid, lent.folder.stat().st_uid) == (61234, 61234)
    lent.restore(staged)
    assert staged.stat().st_uid == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_kill_while_it_is_lent_leaves_no_file_of_its_user_where_root_proves_it(
    lent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    lent.give_to(61234)
    for step in ("replace", "fchown"):
        (lent.home / "a").write_bytes(b"half")
        with monkeypatch.context() as patched:
            patched.setattr(os, step, killed)
            with pytest.raises(KeyboardInterrupt):
                lent.lend(lent.home / "a")
        again = lending.Lent(lent.home)
        again.open()
        assert (lent.home / "a").stat().st_uid == 0
        assert names(lent) == ["a", "swarm"]


def test_a_killed_job_leaves_what_has_arrived_where_the_hub_goes_on(lent: Any) -> None:
    lent.lend(lent.home / "a").write_bytes(b"half")
    again = lending.Lent(lent.home)
    again.open()
    assert names(lent) == ["a", "swarm"]
    again.restore_all()
    assert names(lent) == ["a"]


@pytest.mark.parametrize("odd", ["link", "second name", "folder", "pipe"])
def test_what_is_no_plain_file_does_not_come_back(lent: Any, odd: str) -> None:
    outside = lent.home / "outside"
    outside.write_text("of root")
    place = lent.lend(lent.home / "a")
    make: dict[str, Callable[[], object]] = {
        "link": lambda: place.symlink_to(outside),
        "second name": lambda: os.link(outside, place),
        "folder": lambda: (place / "in").mkdir(parents=True),
        "pipe": lambda: os.mkfifo(place),
    }
    make[odd]()
    lent.restore(lent.home / "a")
    assert names(lent) == ["outside", "swarm"]
    assert outside.read_text() == "of root"


def test_nothing_that_is_there_is_replaced_at_the_end(lent: Any) -> None:
    archive = lent.home / "a"
    archive.write_text("whole")
    (lent.folder / "a").write_text("other")
    lent.restore_all()
    assert archive.read_text() == "whole"
    assert names(lent) == ["a"]


def test_a_folder_in_the_place_of_a_whole_file_stops_no_later_job(lent: Any) -> None:
    (lent.home / "a").write_text("whole")
    (lent.folder / "a" / "in").mkdir(parents=True)
    lent.restore_all()
    assert names(lent) == ["a"]


def test_a_file_that_is_shown_stays_when_it_is_hidden(lent: Any) -> None:
    archive = lent.home / "a"
    archive.write_text("whole")
    assert lent.show(archive).read_text() == "whole"
    lent.hide(archive)
    assert names(lent) == ["a", "swarm"]
    lent.show(archive)
    lent.restore_all()
    assert names(lent) == ["a"]
