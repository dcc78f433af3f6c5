"""Weights are read again bit by bit: within a budget, the longest unread first."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.unit.helper_modules import helper_module

hashed, textfile = helper_module("monitoring.hashed"), helper_module("monitoring.textfile")


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "models").mkdir()
    return {"state": str(tmp_path), "units": str(tmp_path / "units")}


def weight(paths: dict[str, str], name: str, size: int, at: float) -> str:
    """A file of weights with its receipt, which was written ``at``."""
    path = Path(paths["state"]) / "models" / name
    path.write_bytes(name.encode()[:1] * size)
    receipt = Path(f"{path}{hashed.RECEIPT}")
    receipt.write_text(json.dumps({"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}))
    os.utime(receipt, (at, at))
    return str(path)


def test_the_budget_is_kept_and_saved_up_for_a_file_above_it(paths: dict[str, str]) -> None:
    large, small = weight(paths, "large", 250, 1), weight(paths, "small", 40, 2)
    assert hashed.roll(paths, 100) == []
    assert hashed.roll(paths, 100) == []
    assert hashed.roll(paths, 100) == [large, small]
    assert json.loads(hashed.record_path(paths).read_text())["credit_bytes"] == 10


def test_without_a_budget_all_is_read_within_a_month(paths: dict[str, str]) -> None:
    names = [weight(paths, name, size, 1) for name, size in (("a", 5000), ("b", 10), ("c", 700))]
    read: list[str] = []
    for _ in range(31):
        read += hashed.roll(paths)
    assert set(read) == set(names)
    assert len(read) <= 2 * len(names)


def test_the_timer_reads_by_its_document(
    paths: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = weight(paths, "a", 10, 1)
    monkeypatch.setattr(helper_module("monitoring.daily"), "drift", lambda _: [])
    daily = helper_module("monitoring.daily").daily
    assert daily({"paths": paths, "rehash_bytes_per_day": 5})["read"] == []
    assert daily({"paths": paths, "rehash_bytes_per_day": 5})["read"] == [path]


def test_a_host_that_was_off_does_not_read_a_months_worth_at_once(paths: dict[str, str]) -> None:
    for name in "abcdefgh":
        weight(paths, name, 100, 1)
    for _ in range(5):
        assert len(hashed.roll(paths, 100)) <= 2


def test_a_flipped_bit_is_reported_until_the_file_is_fetched_again(paths: dict[str, str]) -> None:
    path = weight(paths, "a", 10, 1)
    Path(path).write_bytes(b"A" * 10)
    assert hashed.roll(paths, 10) == [path]
    assert not Path(f"{path}{hashed.RECEIPT}").exists()
    assert hashed.corrupt(hashed.read_record(paths)) == [path]
    hashed.roll(paths, 10)
    assert hashed.corrupt(hashed.read_record(paths)) == [path]
    weight(paths, "a", 10, 2)
    assert hashed.corrupt(hashed.read_record(paths)) == []


def test_a_missing_disk_is_not_read(paths: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    fault = ("its disk is not mounted", "mount it")
    monkeypatch.setattr(hashed, "root_fault", lambda _: fault)
    with pytest.raises(helper_module("system.commands").HostError, match="not mounted"):
        hashed.roll(paths, 10)


@pytest.mark.parametrize("damage", ["{", "[]"])
def test_a_damaged_record_begins_again(paths: dict[str, str], damage: str) -> None:
    path = weight(paths, "a", 10, 1)
    hashed.record_path(paths).parent.mkdir()
    hashed.record_path(paths).write_text(damage)
    assert hashed.roll(paths, 10) == [path]


def test_an_instance_is_as_old_as_its_oldest_file(paths: dict[str, str], monkeypatch: Any) -> None:
    files = [weight(paths, "a", 10, 500), weight(paths, "b", 10, 900)]
    monkeypatch.setattr(hashed, "installed", lambda _: {"chat": {"shards": files}, "bare": {}})
    found = textfile.Textfile()
    hashed.weights(found, paths)
    assert 'corral_weights_hashed_timestamp_seconds{instance="chat"} 500\n' in found.text()
    assert "bare" not in found.text()
