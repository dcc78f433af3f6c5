"""The host helper: one archive, the same bytes each time, run from standard input."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from corral.host.state import HostState
from corral.paths import HostPaths
from corral.plan.host import HostPlan
from corral.remote.helper_archive import BOOTSTRAP, archive, encoded
from tests.samples import CHAT, ROOT, host, planner
from tests.unit.helper_modules import helper_module

pytestmark = pytest.mark.slow

PACKAGE = ROOT / "files" / "corral_host"


def run(*words: str, document: str = "") -> subprocess.CompletedProcess[str]:
    """The helper as a fact runs it: nothing of it on the host."""
    return subprocess.run(
        [sys.executable, "-I", "-c", BOOTSTRAP, *words],
        input=f"{encoded(PACKAGE)}\n{document}",
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def planned(tmp_path: Path) -> HostPlan:
    """A plan whose folders are in ``tmp_path``, so that nothing of it is there."""
    inside = {
        "engines": "opt/engines", "state": "var/corral", "keys": "etc/keys", "units": "etc/units",
        "helper": "lib/corral_host.pyz",
    }  # fmt: skip
    paths = HostPaths(**{name: str(tmp_path / folder) for name, folder in inside.items()})
    return planner(paths=paths).plan_host(host({**CHAT, "name": "nobody-has-this"}))


def test_the_archive_has_the_same_bytes_wherever_and_whenever(tmp_path: Path) -> None:
    shared = shutil.copytree(PACKAGE.with_name("corral_shared"), tmp_path / "corral_shared")
    elsewhere = Path(shutil.copytree(PACKAGE, tmp_path / "corral_host"))
    for path in (*elsewhere.iterdir(), *Path(shared).iterdir()):
        path.touch()
    assert archive(elsewhere) == archive(PACKAGE)
    archive.cache_clear()
    assert base64.b64decode(encoded(PACKAGE)) == archive(elsewhere)


def test_the_archive_carries_no_date() -> None:
    entries = zipfile.ZipFile(io.BytesIO(archive(PACKAGE))).infolist()
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}


def test_the_archive_holds_every_module_and_nothing_else() -> None:
    names = set(zipfile.ZipFile(io.BytesIO(archive(PACKAGE))).namelist())
    folders = (PACKAGE, PACKAGE.with_name("corral_shared"))
    modules = {
        path.relative_to(PACKAGE.parent).as_posix()
        for folder in folders
        for path in folder.rglob("*.py")
    }
    assert names == modules | {"__main__.py"}


def test_an_unknown_command_fails_with_usage() -> None:
    done = run("frobnicate")
    assert done.returncode == 1
    assert "unknown command frobnicate" in done.stderr
    assert "Usage:" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_command_at_all_fails_with_usage() -> None:
    done = run()
    assert done.returncode == 1
    assert "Usage:" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_installed_archive_runs_too(tmp_path: Path) -> None:
    path = tmp_path / "corral_host.pyz"
    path.write_bytes(archive(PACKAGE))
    done = subprocess.run(
        [sys.executable, "-I", path, "frobnicate"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "unknown command" in done.stderr


def test_the_state_of_this_machine_is_a_host_state(planned: HostPlan) -> None:
    done = run("state", document=planned.to_helper())
    assert done.returncode == 0, done.stderr
    state = HostState.model_validate(json.loads(done.stdout))
    assert state.readable
    # Also where systemd does not run: preflight says so, in place of a failed fact.
    assert state.systemd is Path("/run/systemd/system").is_dir()
    assert state.helper_sha256 is None
    assert state.releases == {planned.releases[0].key: False}
    assert [shard.proved for shard in state.shards.values()] == [False]
    assert set(state.instances) <= {"nobody-has-this"}
    assert not [found for found in state.instances.values() if found.pid or found.staged]


def test_who_is_not_root_is_told_nothing_by_halves(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main = helper_module("__main__")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for command in ("instances", "check", "ready", "held-keys", "keys", "gateway"):
        assert main.main([command, "{}"]) == 1
        told = capsys.readouterr()
        assert json.loads(told.out).keys() == {"fault"}
        assert told.err.startswith("the helper is not root, but user 1000: ")


def test_looking_at_a_host_leaves_nothing_on_it(planned: HostPlan, tmp_path: Path) -> None:
    run("state", document=planned.to_helper())
    assert list(tmp_path.iterdir()) == []


def long(planned: HostPlan) -> str:
    """A plan with a prompt that no argument could hold."""
    document = json.loads(planned.to_helper())
    document["instances"][0]["gate"]["golden"] = [{"prompt": "é" * 300_000}]
    return json.dumps(document, ensure_ascii=False)


def test_a_long_plan_travels_on_standard_input(planned: HostPlan) -> None:
    done = run("state", document=long(planned))
    assert done.returncode == 0, done.stderr
    assert set(HostState.model_validate(json.loads(done.stdout)).releases)


@pytest.mark.parametrize("locale", ["C", "en_US.ISO-8859-1"])
def test_the_installed_helper_reads_a_long_plan(
    planned: HostPlan, tmp_path: Path, locale: str
) -> None:
    path = tmp_path / "corral_host.pyz"
    path.write_bytes(archive(PACKAGE))
    done = subprocess.run(
        [sys.executable, "-I", path, "state"], input=long(planned).encode(), capture_output=True,
        env={"LC_ALL": locale}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert HostState.model_validate(json.loads(done.stdout)).readable


def test_a_short_document_may_be_an_argument() -> None:
    """As in units of systemd, whose commands have no standard input to speak of."""
    paths = json.dumps({"engines": "/nowhere", "state": "/nowhere"})
    assert json.loads(run("releases", paths).stdout) == []


@pytest.mark.parametrize("document", ["", "{", "Welcome!"])
def test_a_damaged_document_is_told(document: str) -> None:
    done = run("releases", document=document)
    assert done.returncode == 1
    assert "is not JSON" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_answer_is_on_a_line_of_its_own(planned: HostPlan) -> None:
    """Start-up files of a shell may say something before that does not end its line."""
    assert run("state", document=planned.to_helper()).stdout.startswith("\n{")
