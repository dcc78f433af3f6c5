"""Checks of a running server's GPUs: memory where it was planned, no error since it started."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.unit.helper_modules import helper_module

check = helper_module("checks.unit_probes")
GPUS: list[dict[str, Any]] = [
    {"index": n, "uuid": f"GPU-{n}", "pci": f"0000:0{n}:00.0"} for n in (0, 1)
]
PID, WORKER = 4242, 4243


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the reports of nvidia-smi and the kernel for a server that started ten seconds ago."""

    def reported(*held: tuple[str, int | None], **log: Any) -> None:
        mine = [{"gpu": gpu, "pid": PID, "used_mib": mib} for gpu, mib in held]
        answer = {"gpus": GPUS, "processes": [*mine, {"gpu": "GPU-0", "pid": 1, "used_mib": 9}]}
        entered = str(int((time.monotonic() - 10) * 1e6))
        monkeypatch.setattr(check, "main_pid", lambda _: PID)
        monkeypatch.setattr(check, "processes_of", lambda _: {PID, WORKER})
        monkeypatch.setattr(check.nvidia_smi, "ask", lambda: answer)
        monkeypatch.setattr(check, "show", lambda *_: {"ActiveEnterTimestampMonotonic": entered})
        fields = {"xids": [], "xids_unreadable": "", **log}
        monkeypatch.setattr(check.kernel, "xids", lambda: fields)

    return reported


def instance(*gpus: int | str) -> dict[str, Any]:
    return {"unit": "corral-chat.service", "gpus": list(gpus)}


@pytest.mark.parametrize(
    ("gpus", "held", "fine"),
    [
        ((), [("GPU-0", 500), ("GPU-1", 500)], True),
        ((1,), [("GPU-1", 500)], True),
        (("GPU-1",), [("GPU-1", 500)], True),
        ((1,), [("GPU-0", 500)], False),
        ((1,), [("GPU-0", 2), ("GPU-1", 500)], False),
        ((), [], False),
        ((), [("GPU-0", 0)], False),
        ((), [("GPU-0", None)], True),
    ],
)
def test_a_server_holds_memory_of_its_gpus_alone(
    report: Any, gpus: tuple[int | str, ...], held: list[tuple[str, int | None]], fine: bool
) -> None:
    report(*held)
    name, ok, detail = check.check_vram(instance(*gpus))
    assert (name, ok) == ("vram", fine)
    assert f"pid {PID} holds" in detail


def test_the_memory_of_every_process_of_the_unit_counts(
    report: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    report()
    mib = {"GPU-0": 500, "GPU-1": 600}
    held = [{"gpu": gpu, "pid": WORKER, "used_mib": mib[gpu]} for gpu in mib]
    answer = {"gpus": GPUS, "processes": held}
    monkeypatch.setattr(check.nvidia_smi, "ask", lambda: answer)
    _, ok, detail = check.check_vram(instance(0, 1))
    assert (ok, detail) == (True, f"pid {WORKER} holds 500 MiB of GPU 0, 600 MiB of GPU 1")
    assert not check.check_vram(instance(0))[1]


def xid(seconds_ago: float, pci: str = GPUS[1]["pci"]) -> dict[str, Any]:
    """Counted from when the test runs, not from when it was collected."""
    return {"pci": pci, "code": 31, "time_seconds": time.time() - seconds_ago}


@pytest.mark.parametrize(
    ("gpus", "reported", "fine"),
    [
        ((), [], True),
        ((), [(60,)], True),
        ((), [(5,)], False),
        ((1,), [(5,)], False),
        ((0,), [(5,)], True),
        ((0,), [(5, "0000:77:00.0")], False),
    ],
)
def test_an_error_of_its_gpus_since_the_start_is_found(
    report: Any, gpus: tuple[int, ...], reported: list[tuple[Any, ...]], fine: bool
) -> None:
    report(xids=[xid(*one) for one in reported])
    assert check.check_xid(instance(*gpus))[1] is fine


def test_a_log_that_cannot_be_read_proves_nothing(report: Any) -> None:
    report(xids_unreadable="not permitted")
    with pytest.raises(check.HostError, match="unreadable: not permitted"):
        check.check_xid(instance())
