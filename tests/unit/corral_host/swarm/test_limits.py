"""Serving others gives way: limits of the inventory, low weights, an end."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.corral_host.swarm.test_parts import DIGEST, changed
from tests.unit.helper_modules import helper_module

settings, board = helper_module("swarm.settings"), helper_module("swarm.board")
table, members = helper_module("swarm.table"), helper_module("swarm.member")
seeding, units = helper_module("swarm.seeder"), helper_module("swarm.unit")


def arguments(**limits: int) -> tuple[str, ...]:
    """What aria2 is started with."""
    seeder = object.__new__(seeding.Seeder)
    seeder.settings, seeder._port = settings.settings_of(changed(**limits)), 1
    found: tuple[str, ...] = seeder._arguments()
    return found


def test_aria2_has_the_limits_of_the_inventory() -> None:
    found = arguments(upload_bytes_per_second=5_000_000, connections=7)
    assert "--max-overall-upload-limit=5000000" in found
    assert "--bt-max-peers=7" in found
    assert "--interface=127.0.0.1" in found


def test_reads_of_servers_go_before_those_of_aria2() -> None:
    assert {"Nice=10", "CPUWeight=20", "IOWeight=20", "IOSchedulingPriority=7"} <= {*units.GENTLE}
    assert "DynamicUser=yes" in units.SANDBOX


def test_aria2_sees_no_folder_of_the_host_but_those_of_the_system_and_the_models() -> None:
    found = units.hidden("/models")
    assert {"/opt", "/srv", "/var/lib"} <= set(found)
    assert "ProtectHome=tmpfs" in units.SANDBOX
    assert not {"/root", "/usr", "/dev", "/proc", "/var", "/var/tmp", "/models"} & set(found)


class Served:
    """A member that has a file, and another one that wants it and answers for ever."""

    def __init__(self, **limits: int) -> None:
        self.settings = settings.settings_of(changed(**limits))
        self.board, self.table = board.Board(self.settings), table.Table()
        file = SimpleNamespace(
            sha256=DIGEST, size_bytes=5, staged=None, is_whole=lambda: True, pieces=lambda: "00"
        )
        seeder = SimpleNamespace(unit=SimpleNamespace(lent=None))
        self.member: Any = members.Member(self.settings, [], [file], self.board, self.table, seeder)

    def hears(self, state: str, *, settled: bool) -> None:
        self.board._seen["b"] = board.Seen(float("inf"), settled, {DIGEST: (state, 0)})


def test_what_is_no_plain_file_when_it_is_restored_is_left_to_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(members, "PAUSE_SECONDS", 0.05)
    member = Served().member
    member.lent = SimpleNamespace(lend=lambda path: path, restore=lambda _: None)
    ended = {"status": "complete", "completedLength": "5"}
    member.seeder = SimpleNamespace(
        add=lambda *_, **__: "1", status=lambda _: ended, remove=lambda _: None
    )
    monkeypatch.setattr(member.board, "pieces", lambda *_: "00")
    file = SimpleNamespace(
        sha256=DIGEST, size_bytes=5, path=tmp_path / "w", staged=tmp_path / "gone",
        from_hub=True, prepare=lambda: None,
    )  # fmt: skip
    assert not member.take(file)
    assert member.alone == {DIGEST}
    assert "what arrived is no plain file; the hub serves the rest" in capsys.readouterr().out


def test_a_host_that_others_want_something_of_stops_at_the_limit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(members, "PAUSE_SECONDS", 0.05)
    served = Served(upload_seconds=1)
    served.hears("taking", settled=False)
    served.member.stay()
    said = capsys.readouterr().out
    assert "has all, serves 1 hosts. Group: 50% of 2 hosts, 1 have all" in said
    assert "stops to serve others after 1 s" in said


def test_a_host_stops_when_the_group_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(members, "PAUSE_SECONDS", 0.05)
    served = Served(upload_seconds=3600)
    served.hears("taking", settled=False)
    staying = threading.Thread(target=served.member.stay, daemon=True)
    staying.start()
    staying.join(0.3)
    assert staying.is_alive()
    served.hears("held", settled=True)
    served.table.asked("b")
    staying.join(120)
    assert not staying.is_alive()
    assert "stops to serve" not in capsys.readouterr().out
