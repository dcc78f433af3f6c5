"""A server in an image: which process it is, and what of its image is noticed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.unit.helper_modules import helper_module

runtimes = helper_module("runtimes")
apptainer = helper_module("runtimes.apptainer")
images = helper_module("runtimes.images")
HostError = helper_module("system.commands").HostError

PYTHON = str(Path(sys.executable).resolve())
HOLDS = "import sys; f = open(sys.argv[1]); print(1, flush=True); sys.stdin.read()"


class Unit:
    """A starter that has the image open, and a server beside it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.image = folder / "image.squashfs"
        self.image.write_bytes(b"all of it")
        digest = sha256(b"all of it").hexdigest()
        text = f'{{"files": {{"image.squashfs": {{"sha256": "{digest}"}}}}}}'
        (folder / "manifest.json").write_text(text)
        receipt = {"image": images.mark(self.image)}
        (folder / "installed.json").write_text(json.dumps(receipt))
        self.starter = self.start(HOLDS, str(self.image))
        self.server = self.start(HOLDS, "/dev/null")
        runtime = {"kind": "apptainer", "image": str(self.image), "unpacks": True}
        argv = [PYTHON, "-c", HOLDS, "/dev/null"]
        self.instance: dict[str, Any] = {"unit": "corral-chat", "argv": argv, "runtime": runtime}
        pids = {self.starter.pid, self.server.pid}
        monkeypatch.setattr(apptainer, "processes_of", lambda _: pids)
        apptainer.digest.cache_clear()

    def start(self, code: str, *words: str) -> subprocess.Popen[bytes]:
        command = [PYTHON, "-c", code, *words]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout
        assert process.stdout.readline() == b"1\n"
        return process

    def end(self) -> None:
        for process in (self.starter, self.server):
            process.communicate()

    def problem(self) -> str:
        found: str = runtimes.of(self.instance).image_problem(self.instance, self.starter.pid)
        return found


@pytest.fixture
def unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Unit]:
    made = Unit(tmp_path, monkeypatch)
    yield made
    made.end()


def test_the_server_is_the_process_with_its_command_line(unit: Unit) -> None:
    found = runtimes.of(unit.instance).server_pid(unit.instance, unit.starter.pid)
    assert found == unit.server.pid
    assert runtimes.of(unit.instance).is_planned(unit.instance, found)
    native = {**unit.instance, "runtime": {"kind": "native"}}
    assert runtimes.of(native).server_pid(native, unit.starter.pid) == unit.starter.pid


def test_before_it_runs_there_is_the_starter(unit: Unit) -> None:
    other = {**unit.instance, "argv": ["/bin/other"]}
    assert runtimes.of(other).server_pid(other, unit.starter.pid) == unit.starter.pid


def test_a_plan_of_an_earlier_version_is_native() -> None:
    assert runtimes.of({}).kind == "native"
    with pytest.raises(HostError, match="knows no runtime jail"):
        runtimes.of({"runtime": {"kind": "jail"}})


def test_an_image_as_proved_is_fine(unit: Unit) -> None:
    assert unit.problem() == ""


def test_a_flipped_bit_is_noticed(unit: Unit) -> None:
    with unit.image.open("r+b") as file:
        file.write(b"b")
    assert "has sha256" in unit.problem()
    assert runtimes.of(unit.instance).is_replaced(unit.instance, unit.starter.pid)


def test_another_file_in_its_place_is_noticed_even_with_the_same_bytes(unit: Unit) -> None:
    other = unit.image.with_name("new")
    other.write_bytes(b"all of it")
    other.replace(unit.image)
    assert "was replaced since the server started" in unit.problem()
    assert runtimes.of(unit.instance).is_replaced(unit.instance, unit.starter.pid)


def test_a_removed_image_is_noticed(unit: Unit) -> None:
    unit.image.unlink()
    assert "was removed" in unit.problem()


def test_a_mounted_image_needs_the_process_that_serves_its_files(unit: Unit) -> None:
    unit.instance["runtime"]["unpacks"] = False
    assert unit.problem() == "squashfuse, which serves the image's files, has ended"
