"""Figures of GPUs for monitoring: what a driver reports, does not know, or never answers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.helper_modules import helper_module, program

figures = helper_module("nvidia.figures")
ROW = (
    "0, NVIDIA H200, GPU-1, 00000000:3B:00.0, 143771, 1024, 87, 61, 512.25, 700.00, 1980, 3201, "
    "{mask}, {ecc}, 2, 5"
)


def answering(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program(folder / "bin", "nvidia-smi", script)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")


def test_a_gpu_tells_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = ROW.format(mask="0x0000000000000024", ecc="3")
    answering(tmp_path, monkeypatch, f"echo '{row}'")
    (gpu,), problem = figures.figures()
    assert problem == ""
    assert (gpu["index"], gpu["pci"]) == ("0", "0000:3b:00.0")
    assert (gpu["memory_used_mib"], gpu["utilization_percent"], gpu["power_watts"]) == (
        1024, 87, 512.25,
    )  # fmt: skip
    assert (gpu["ecc_corrected"], gpu["ecc_uncorrected"], gpu["pcie_replays"]) == (3, 2, 5)
    active = {name for name, on in figures.reasons(gpu["throttled"]).items() if on}
    assert active == {"power_cap", "thermal"}


def test_what_a_gpu_does_not_have_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(tmp_path, monkeypatch, f"echo '{ROW.format(mask='[N/A]', ecc='[N/A]')}'")
    (gpu,), _ = figures.figures()
    assert gpu["ecc_corrected"] is None
    assert figures.reasons(gpu["throttled"]) == {}


def test_a_field_that_a_driver_does_not_know_costs_that_field_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
case "$1" in
*pcie.replay_counter*) echo 'Field "pcie.replay_counter" is not a valid field to query.'; exit 2;;
*power.draw*) echo 'Field "power.draw" is not a valid field to query.'; exit 2;;
*) echo '0, A, GPU-1, 00000000:3B:00.0, 10, 1, 5, 40, 700, 1980, 3201, 0x0, 0, 0';;
esac"""
    answering(tmp_path, monkeypatch, script)
    (gpu,), problem = figures.figures()
    assert (problem, gpu["power_watts"], gpu["pcie_replays"]) == ("", None, None)
    assert (gpu["power_limit_watts"], gpu["ecc_uncorrected"]) == (700, 0)


def test_a_driver_that_fails_is_a_problem_beside_the_gpus_that_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = ROW.format(mask="0x0", ecc="0")
    answering(tmp_path, monkeypatch, f"echo '{row}'; echo 'GPU is lost'; exit 15")
    rows, problem = figures.figures()
    assert (len(rows), problem) == (1, "GPU is lost")


def test_a_driver_that_hangs_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "SECONDS", 0.2)
    answering(tmp_path, monkeypatch, "exec sleep 60")
    assert figures.figures() == ([], "nvidia-smi did not answer in 0.2 s")


def test_a_host_without_the_driver_has_no_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert figures.figures() == ([], "")
