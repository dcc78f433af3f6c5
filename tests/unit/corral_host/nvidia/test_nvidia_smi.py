"""How the helper reads nvidia-smi: healthy and faulty GPUs, no driver, another driver."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from corral.host.answers import ObservedInstances
from corral.host.state import Gpu, GpuHost
from tests.unit.helper_modules import helper_module, program

smi = helper_module("nvidia.nvidia_smi")
H200 = (
    "0, NVIDIA H200, GPU-139725b2-8e1f-4d2c-9b1a-5f0f6a7c3d21, 00000000:3B:00.0, 580.159.04, "
    "Enabled, 143771, 143156, 9.0, 0, Default, Disabled"
)
GEFORCE = (
    "1, NVIDIA GeForce RTX 3090 Ti, GPU-2, 00000000:5E:00.0, 535.183.01, "
    "Disabled, 24564, 24111, 8.6, [N/A], Default, [N/A]"
)
NO_DRIVER = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
    "Make sure that the latest NVIDIA driver is installed and running.\n"
)
MISMATCH = (
    "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 550.90\n"
)
LOST = "Unable to determine the device handle for GPU0000:3B:00.0: Unknown Error\n"


def answer(folder: Path, monkeypatch: pytest.MonkeyPatch, gpus: str, code: int = 0, apps: str = "",
           ) -> dict[str, Any]:  # fmt: skip
    """Result of ``ask`` for a program with this output."""
    (folder / "gpus").write_text(gpus)
    (folder / "apps").write_text(apps)
    case = (
        f'case "$1" in --query-gpu*) cat {folder}/gpus; exit {code};; *) cat {folder}/apps;; esac'
    )
    program(folder / "bin", "nvidia-smi", case)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    found: dict[str, Any] = smi.ask()
    return found


def read(row: str) -> Gpu:
    (found,) = smi.gpu_rows(row)
    return Gpu.model_validate(found)


def test_a_gpu_is_read_whole() -> None:
    assert read(H200) == Gpu(
        index=0,
        name="NVIDIA H200",
        uuid="GPU-139725b2-8e1f-4d2c-9b1a-5f0f6a7c3d21",
        pci="0000:3b:00.0",
        driver_version="580.159.04",
        persistence=True,
        memory_total_mib=143771,
        memory_free_mib=143156,
        compute_capability="9.0",
        ecc_uncorrected=0,
        compute_mode="Default",
        mig_mode="Disabled",
    )


def test_what_a_gpu_does_not_have_is_null_and_no_problem() -> None:
    found = read(GEFORCE)
    assert (found.ecc_uncorrected, found.persistence, found.problem) == (None, False, "")


@pytest.mark.parametrize(
    "word", ["[GPU requires reset]", "[Unknown Error]", "ERR!", "[GPU is lost]"]
)
def test_a_field_that_a_gpu_does_not_answer_is_null_and_its_problem(word: str) -> None:
    found = read(H200.replace("143156", word))
    assert (found.memory_free_mib, found.problem) == (None, word)
    assert found.memory_total_mib == 143771


@pytest.mark.parametrize(
    "row", ["", "No devices were found", "a, b, c", H200.replace("0, N", "x, N", 1)]
)
def test_anything_else_is_no_gpu(row: str) -> None:
    assert smi.gpu_rows(row) == []


def test_gpus_and_their_holders_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = os.getpid()
    apps = f"GPU-2, {mine}, 17571\nGPU-2, 4194399, [N/A]\nGPU-2, [N/A], 3\n"
    found = answer(tmp_path, monkeypatch, f"{H200}\n{GEFORCE}\n", apps=apps)
    host = GpuHost.model_validate(found)
    assert [gpu.index for gpu in host.gpus] == [0, 1]
    assert (host.failure, host.problem) == ("", "")
    held, gone = host.processes
    assert (held.pid, held.used_mib, held.gpu) == (mine, 17571, "GPU-2")
    assert held.program == Path(f"/proc/{mine}/comm").read_text().strip()
    assert (gone.program, gone.unit, gone.used_mib) == ("?", "", None)


@pytest.mark.parametrize(
    ("text", "code", "failure"),
    [
        (NO_DRIVER, 9, "no-driver"),
        ("", 9, "no-driver"),
        ("No devices were found\n", 6, "no-devices"),
        ("", 6, "no-devices"),
        (MISMATCH, 18, "mismatch"),
        (LOST, 15, "lost"),
        ("Reboot the system to recover this GPU\n", 15, "lost"),
        ('Field "compute_cap" is not a valid field to query.\n', 2, "other"),
        ("", 1, "other"),
    ],
)
def test_a_failure_is_named_and_told_in_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, code: int, failure: str
) -> None:
    found = answer(tmp_path, monkeypatch, text, code)
    assert (found["gpus"], found["failure"]) == ([], failure)
    assert found["problem"] == (" ".join(text.splitlines()) or f"nvidia-smi exited with {code}")


def test_the_library_of_a_mismatch_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert answer(tmp_path, monkeypatch, MISMATCH, 18)["nvml_version"] == "550.90"


def test_one_lost_gpu_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = answer(tmp_path, monkeypatch, f"{LOST}{GEFORCE}\n", 255)
    assert [gpu["index"] for gpu in found["gpus"]] == [1]
    assert (found["failure"], found["lost"]) == ("lost", ["0000:3b:00.0"])


def test_a_host_without_nvidia_smi_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert smi.ask()["failure"] == "absent"


IN_USE = (
    "0, NVIDIA H200, GPU-a, 143771, 97012, 88, 61\n1, NVIDIA H200, GPU-b, 143771, 4, [N/A], 33\n"
)


def used(folder: Path, monkeypatch: pytest.MonkeyPatch, *answers: Any) -> ObservedInstances:
    answer(folder, monkeypatch, *answers)
    found = smi.use()
    document = {"instances": {}, "gpus": found["gpus"], "gpu_problem": found["problem"]}
    return ObservedInstances.model_validate(document)


def test_the_use_of_each_gpu_is_told_with_who_holds_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    units = {7: "corral-air.service", 8: "corral-air.service", 9: ""}
    who = {pid: {"program": "python3", "unit": unit} for pid, unit in units.items()}
    monkeypatch.setattr(smi, "who", who.__getitem__)
    apps = "GPU-a, 7, 90000\nGPU-a, 8, 5000\nGPU-a, 9, 1500\nGPU-b, 8, [N/A]\n"
    first, second = used(tmp_path, monkeypatch, IN_USE, 0, apps).gpus
    assert (first.memory_used_mib, first.memory_total_mib) == (97012, 143771)
    assert (first.utilization_percent, first.temperature_celsius) == (88, 61)
    assert first.units == {"corral-air.service": 95000, "python3 (pid 9)": 1500}
    # A driver may not say how much, and a GPU not how busy it is.
    assert (second.utilization_percent, second.temperature_celsius) == (None, 33)
    assert second.units == {"corral-air.service": None}


def test_gpus_that_answer_are_told_beside_one_that_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = used(tmp_path, monkeypatch, LOST + IN_USE, 15)
    assert [gpu.index for gpu in found.gpus] == [0, 1]
    assert "Unable to determine the device handle" in found.gpu_problem


def test_a_query_that_fails_in_silence_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert used(tmp_path, monkeypatch, "", 9).gpu_problem == "nvidia-smi exited with 9"
