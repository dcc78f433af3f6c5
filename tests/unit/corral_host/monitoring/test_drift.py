"""Drift of a host from its own records: each kind has a row, and a fault hides no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.helper_modules import helper_module

drift, daily = helper_module("monitoring.drift"), helper_module("monitoring.daily")
boot = helper_module("observe.boot")
textfile = helper_module("monitoring.textfile")


class Host:
    """A host with one instance, as deployed until a test changes it."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths = {"state": str(root), "units": f"{root}/units", "gateway": f"{root}/gateway"}
        self.weights = root / "models" / "w.gguf"
        self.weights.parent.mkdir()
        self.weights.write_bytes(b"weights")
        found = self.weights.stat()
        receipt = {"sha256": "0", "size_bytes": found.st_size, "mtime_ns": found.st_mtime_ns}
        self.receipt = Path(f"{self.weights}{drift.RECEIPT}")
        self.receipt.write_text(json.dumps(receipt))
        release = root / "release"
        release.mkdir()
        (release / "manifest.json").write_text(json.dumps({"key": "r1", "files": {}}))
        self.plan: dict[str, Any] = {
            "generation": "one", "release": "r1", "release_folder": str(release),
            "shards": [str(self.weights)],
        }  # fmt: skip
        self.differs: list[str] = []
        self.units: list[str] = []
        self.library, self.module = "580.1", "580.1"
        self.packages = {"a": {"held": True}, "b": {"held": True}}
        for name, found_now in {
            "installed": lambda _: {"chat": self.plan},
            "instance_state": lambda *_, **__: {"differs": self.differs},
            "strange_units": lambda _: self.units,
            "library_version": lambda: self.library,
            "packages": lambda *_: self.packages,
        }.items():
            monkeypatch.setattr(drift, name, found_now)
        self.command_line = "BOOT_IMAGE=/vmlinuz-6.1 ro iommu=pt hugepages=64"
        monkeypatch.setattr(boot, "command_line", lambda: self.command_line)
        monkeypatch.setattr(drift.kernel, "module", lambda: {"module_version": self.module})

    def rows(self) -> list[dict[str, str]]:
        found: list[dict[str, str]] = drift.drift({"paths": self.paths})
        assert all(all(row.values()) for row in found)
        return found


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_a_host_as_deployed_has_no_drift(host: Host) -> None:
    assert host.rows() == []


def test_each_difference_of_an_instance_is_a_row(host: Host) -> None:
    host.differs = ["it does not run", "its keys were replaced since it started"]
    assert [(row["where"], row["found"]) for row in host.rows()] == [
        ("chat", one) for one in host.differs
    ]
    assert host.rows()[0]["planned"] == "generation one"
    assert "corral verify HOST/chat" in host.rows()[0]["next_step"]


def test_a_release_that_lost_a_file_is_a_row(host: Host) -> None:
    manifest = {"key": "r1", "files": {"bin/server": {"size_bytes": 3}}}
    (Path(host.plan["release_folder"]) / "manifest.json").write_text(json.dumps(manifest))
    assert [row["planned"] for row in host.rows()] == ["release r1"]


@pytest.mark.parametrize(
    ("what", "said"),
    [("touched", "changed since"), ("removed", "missing"), ("unproved", "not proved")],
)
def test_weights_that_are_not_as_proved_are_a_row(host: Host, what: str, said: str) -> None:
    if what == "touched":
        host.weights.write_bytes(b"other weights")
    elif what == "removed":
        host.weights.unlink()
    else:
        host.receipt.unlink()
    (row,) = host.rows()
    assert (row["where"], row["planned"]) == ("weights", str(host.weights))
    assert said in row["found"]


def test_a_driver_of_another_version_and_one_that_is_not_held_are_rows(host: Host) -> None:
    host.module, host.packages["b"] = "570.2", {"held": False}
    differs, held = host.rows()
    assert "570.2" in differs["found"]
    assert held["found"] == "apt may upgrade b"


def test_a_driver_that_somebody_else_installed_is_not_held(host: Host) -> None:
    host.packages = {"a": {"held": False}}
    assert host.rows() == []


def test_arguments_of_the_kernel_that_changed_since_the_last_deploy_are_rows(host: Host) -> None:
    assert not boot.is_recorded(host.paths)
    assert host.rows() == []  # no deploy has noted them yet
    boot.record({"paths": host.paths})
    host.command_line = "BOOT_IMAGE=/vmlinuz-6.2 initrd=/new ro iommu=pt hugepages=64"
    assert boot.is_recorded(host.paths)
    assert host.rows() == []
    host.command_line = "BOOT_IMAGE=/vmlinuz-6.2 ro hugepages=32 quiet"
    assert [(row["planned"], row["found"]) for row in host.rows()] == [
        ("iommu=pt", "it is gone"),
        ("hugepages=64", "it is gone"),
        ("as at the last deploy", "hugepages=32 is new"),
        ("as at the last deploy", "quiet is new"),
    ]
    assert {row["where"] for row in host.rows()} == {"kernel command line"}
    boot.record({"paths": host.paths})
    assert host.rows() == []


def test_the_first_deploy_makes_the_folder_of_the_record(tmp_path: Path) -> None:
    paths = {"state": str(tmp_path / "var" / "corral")}
    boot.record({"paths": paths})
    assert boot.is_recorded(paths)
    assert (tmp_path / "var" / "corral").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("text", ["", "[]", '{"arguments": "ro"}', '{"arguments": [1]}'])
def test_a_damaged_record_is_written_again_and_is_no_drift(host: Host, text: str) -> None:
    boot.record_path(host.paths).write_text(text)
    assert not boot.is_recorded(host.paths)
    assert host.rows() == []


def test_a_unit_that_no_instance_has_is_a_row(host: Host) -> None:
    host.units = ["corral-old.service"]
    (row,) = host.rows()
    assert row["next_step"] == "on the host `systemctl disable --now corral-old.service`"


def test_a_part_that_cannot_be_compared_is_a_row_and_hides_no_other(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.units = ["corral-old.service"]
    del host.plan["release"]

    def broken(_: Any) -> None:
        raise OSError("disk error")

    monkeypatch.setattr(drift, "root_fault", broken)
    assert [row["where"] for row in host.rows()] == ["chat", "weights", "corral-old.service"]


def test_the_daily_check_is_kept_for_the_metrics_even_where_weights_cannot_be_read(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: Any) -> None:
        raise OSError("no disk")

    host.units = ["corral-old.service"]
    monkeypatch.setattr(daily, "roll", lost)
    before = textfile.Textfile()
    drift.drifted(before, host.paths)
    assert before.text() == ""
    with pytest.raises(OSError, match="no disk"):
        daily.daily({"paths": host.paths})
    found = textfile.Textfile()
    drift.drifted(found, host.paths)
    assert "corral_drift_rows 1\n" in found.text()


def test_drift_is_looked_for_again_until_there_is_none(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(drift.time, "time", lambda: now)

    def rows() -> int:
        drift.look_again(host.paths)
        kept: dict[str, Any] = drift.read_json(drift.record_path(host.paths))
        return len(kept["rows"])

    host.units = ["corral-old.service"]
    drift.keep(host.paths, host.rows())
    host.units = []
    assert rows() == 1
    now += drift.AGAIN_SECONDS
    assert rows() == 0
    # Afterwards once a day is enough.
    host.units = ["corral-old.service"]
    now += drift.AGAIN_SECONDS
    assert rows() == 0


def test_the_first_check_is_the_daily_one(host: Host) -> None:
    drift.look_again(host.paths)
    assert drift.read_json(drift.record_path(host.paths)) is None
