"""The toolchain of a build: exactly the planned one, with nvcc for every GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit import helper_hosts as hosts
from tests.unit import release_samples as samples
from tests.unit.helper_modules import helper_module, program

toolchain = helper_module("release.toolchain")
HostError = helper_module("system.commands").HostError


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Spec of a build whose programs all exist."""
    monkeypatch.setattr(toolchain, "find_program", lambda name: name)
    return samples.release(tmp_path)


def test_the_planned_one_is_told_for_the_manifest(spec: dict[str, Any]) -> None:
    found, nvcc = toolchain.check_toolchain(spec)
    assert nvcc is None
    assert found["compiler"].startswith("c++ (")
    assert found["c_library"] == spec["artifact"]["toolchain"]["c_library"]
    assert found["cuda"] is None
    assert "sse2" in found["cpu"]["flags"]
    assert found["cpu"]["model"]


@pytest.mark.parametrize(("part", "reported"), [("compiler", "c\\+\\+ is"), ("c_library", "C lib")])
def test_another_one_is_refused(spec: dict[str, Any], part: str, reported: str) -> None:
    spec["artifact"]["toolchain"][part] = "9.9"
    with pytest.raises(HostError, match=f"{reported}.*planned is 9.9.*Next:"):
        toolchain.check_toolchain(spec)


def test_a_program_that_is_missing_is_told(
    spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolchain, "find_program", lambda name: name if name != "ninja" else None)
    with pytest.raises(HostError, match="ninja cannot be found here"):
        toolchain.check_toolchain(spec)


def nvcc(folder: Path, version: str = "12.8", known: str = "compute_80 compute_90") -> str:
    listed = known.replace(" ", "\\n")
    program(
        folder,
        "nvcc",
        f'case $1 in --version) echo "Cuda compilation tools, release {version}, V{version}.93";;'
        f" --list-gpu-arch) printf '{listed}\\n';; esac",
    )
    return str(folder / "nvcc")


@pytest.fixture
def cuda(spec: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A build for GPUs without any nvcc."""
    monkeypatch.setattr(toolchain, "CUDA_FOLDER", tmp_path)
    monkeypatch.setattr(toolchain, "PROGRAMS", str(tmp_path / "path"))
    spec["artifact"]["toolchain"]["cuda_toolkit"] = "12.8"
    option = "-DCMAKE_CUDA_ARCHITECTURES=80;90"
    spec["artifact"]["cmake_options"] = ["-DGGML_CUDA=ON", option]
    return {**spec, "backend": "cuda"}


def test_the_release_s_own_folder_comes_first(cuda: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "cuda").mkdir()
    (tmp_path / "cuda-12.8").mkdir()
    nvcc(tmp_path / "cuda" / "bin", "13.0")
    nvcc(tmp_path / "path")
    own = nvcc(tmp_path / "cuda-12.8" / "bin")
    found, used = toolchain.check_toolchain(cuda)
    assert used == own
    assert found["cuda"] == "12.8.93"


def test_one_in_the_path_will_do(cuda: dict[str, Any], tmp_path: Path) -> None:
    own = nvcc(tmp_path / "path")
    assert toolchain.find_nvcc(cuda) == own


def test_none_is_told(cuda: dict[str, Any]) -> None:
    with pytest.raises(HostError, match="there is none at all.*cuda-toolkit-12-8"):
        toolchain.check_toolchain(cuda)


@pytest.mark.parametrize("version", ["12.6", "13.0", "12.80"])
def test_another_release_is_told(cuda: dict[str, Any], tmp_path: Path, version: str) -> None:
    nvcc(tmp_path / "path", version)
    with pytest.raises(HostError, match=f"nvcc is {version}.93"):
        toolchain.check_toolchain(cuda)


def test_a_broken_one_is_told(cuda: dict[str, Any], tmp_path: Path) -> None:
    program(tmp_path / "path", "nvcc", "exit 1")
    with pytest.raises(HostError, match="nvcc is broken"):
        toolchain.check_toolchain(cuda)


def test_a_gpu_newer_than_nvcc_is_told(cuda: dict[str, Any], tmp_path: Path) -> None:
    nvcc(tmp_path / "path")
    cuda["artifact"]["cmake_options"] = ["-DCMAKE_CUDA_ARCHITECTURES=90-real;120a"]
    with pytest.raises(HostError, match=r"compute capability 12\.0; it knows 80, 90"):
        toolchain.check_toolchain(cuda)


def test_native_means_the_gpus_here(
    cuda: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvcc(tmp_path / "path", known="compute_80")
    cuda["artifact"]["cmake_options"] = ["-DCMAKE_CUDA_ARCHITECTURES=native"]
    hosts.gpus(monkeypatch, 4000)
    with pytest.raises(HostError, match=r"compute capability 9\.0"):
        toolchain.check_toolchain(cuda)
