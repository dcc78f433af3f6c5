"""What the helper reads of the kernel: PCI devices, the module, memory, Xid errors."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from corral.host.state import Memory
from tests.unit.helper_modules import helper_module, program

kernel = helper_module("system.kernel")
OPEN = """\
NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build  (dvs@lab)
GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)
"""
PROPRIETARY = """\
NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024
GCC version:
"""
XID = "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
PARTITION = "NVRM: Xid (PCI:0000:5e:00 GPU-I:05): 94, pid=7, Contained: SM (0x1)."
BOOT = "1800000000.000000 gpu-01 kernel: Linux version 6.1"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(kernel, "STAND_IN", tmp_path / "kernel")
    return tmp_path


def put(root: Path, path: str, text: str) -> None:
    target = root / "kernel" / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def device(root: Path, name: str, *, vendor: str, kind: str, node: str = "0") -> None:
    for file, text in (("vendor", vendor), ("class", kind), ("numa_node", node)):
        put(root, f"sys/bus/pci/devices/{name}/{file}", f"{text}\n")


def test_only_nvidias_display_controllers_are_gpus(root: Path) -> None:
    device(root, "0000:3b:00.0", vendor="0x10de", kind="0x030200", node="1")
    device(root, "0000:3b:00.1", vendor="0x10de", kind="0x040300")
    device(root, "0000:05:00.0", vendor="0x102b", kind="0x030000")
    device(root, "0000:5e:00.0", vendor="0x10de", kind="0x030000", node="-1")
    assert kernel.pci_gpus() == [
        {"pci": "0000:3b:00.0", "numa_node": 1},
        {"pci": "0000:5e:00.0", "numa_node": None},
    ]


@pytest.mark.parametrize(
    ("text", "version", "is_open"),
    [(OPEN, "580.159.04", True), (PROPRIETARY, "535.183.01", False), ("", None, False)],
)
def test_the_loaded_module_is_told(root: Path, text: str, version: str, is_open: bool) -> None:
    put(root, "proc/driver/nvidia/version", text)
    assert kernel.module() == {"module_version": version, "open_module": is_open}


def test_no_module_is_loaded_where_the_kernel_shows_none(root: Path) -> None:
    assert root
    assert kernel.module()["module_version"] is None


def test_memory_of_this_machine_is_plausible() -> None:
    memory = Memory.model_validate(kernel.memory())
    assert 0 < memory.available_mib <= memory.total_mib
    assert kernel.numa_nodes() >= 1


def log_of(root: Path, monkeypatch: pytest.MonkeyPatch, journal: str, ring: str) -> None:
    """Programs that show these logs; an empty journal has no kernel messages at all."""
    (root / "log").write_text(journal)
    program(root / "bin", "journalctl", f"case \"$*\" in *-g*) grep 'NVRM: Xid' {root}/log;; "
            f"*) tail -n 1 {root}/log;; esac")  # fmt: skip
    program(root / "bin", "dmesg", ring)
    monkeypatch.setenv("PATH", f"{root / 'bin'}:/usr/bin:/bin")


def test_xids_are_read_from_the_journal(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [BOOT, f"1800000001.5 gpu-01 kernel: {XID}", f"1800000002.5 gpu-01 kernel: {PARTITION}"]
    log_of(root, monkeypatch, "\n".join(lines) + "\n", "exit 1")
    assert kernel.xids() == {
        "xids": [
            {"pci": "0000:3b:00.0", "code": 79, "time_seconds": 1800000001.5},
            {"pci": "0000:5e:00.0", "code": 94, "time_seconds": 1800000002.5},
        ],
        "xids_unreadable": "",
    }


def test_a_journal_without_xids_is_readable(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log_of(root, monkeypatch, f"{BOOT}\n", "exit 1")
    assert kernel.xids() == {"xids": [], "xids_unreadable": ""}


def test_a_container_reads_the_ring_buffer(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    when = "2027-01-15T08:00:01,500000+00:00"
    log_of(root, monkeypatch, "", f'echo "{when} {XID.replace(chr(39), "")}"')
    (found,) = kernel.xids()["xids"]
    assert found["code"] == 79
    assert found["time_seconds"] == datetime(2027, 1, 15, 8, 0, 1, 500000, tzinfo=UTC).timestamp()


def test_a_log_that_nobody_shows_is_unreadable_not_empty(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    denied = "dmesg: read kernel buffer failed: Operation not permitted"
    log_of(root, monkeypatch, "", f"echo '{denied}' >&2; exit 1")
    assert kernel.xids() == {"xids": [], "xids_unreadable": denied}


def test_a_journal_that_cannot_search_is_unreadable(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_of(root, monkeypatch, "", "exit 1")
    refusal = "Compiled without pattern matching support"
    search = f"echo '{refusal}' >&2; exit 1"
    program(root / "bin", "journalctl", f"case \"$*\" in *-g*) {search};; *) echo '{BOOT}';; esac")
    assert kernel.xids()["xids_unreadable"] == refusal


@pytest.mark.parametrize("text", ["00000000:3B:00.0", "0000:3b:00", "0000:3B:00.0"])
def test_every_spelling_of_an_address_is_sysfs(text: str) -> None:
    assert kernel.pci_address(text) == "0000:3b:00.0"
