"""What goes wrong while uv makes an environment: each is named, and nothing is half installed."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.wheel_index import Index, serving
from tests.lab.waiting import wait_for
from tests.unit import helper_hosts as hosts
from tests.unit.engines.test_python_environment import another
from tests.unit.engines.test_third_engine import as_root, build, environment, pinned, tools
from tests.unit.engines.test_third_engine import made as made
from tests.unit.engines.test_third_engine import registered as registered
from tests.unit.engines.test_third_engine import served as served
from tests.unit.engines.test_third_engine import spec as spec
from tests.unit.engines.test_third_engine import uv as uv
from tests.unit.helper_modules import helper_module
from tests.wheels import flip, make_wheel, requirement

pytestmark = pytest.mark.slow

uv_module, prune = helper_module("release.uv"), helper_module("release.prune")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without GPUs; uv asks a silent index three times, with pauses."""
    hosts.build_host(monkeypatch)
    environment_of = uv_module.Uv.environment
    monkeypatch.setattr(
        uv_module.Uv, "environment", lambda self: {**environment_of(self), "UV_HTTP_RETRIES": "0"}
    )


def refused(release: dict[str, Any], said: str) -> Any:
    """Making the release fails with this; nothing of it is installed."""
    with pytest.raises(tools.HostError, match=said) as caught:
        build.build(release)
    folder = Path(release["folder"])
    assert not folder.exists()
    assert not folder.with_name(f".staging-{folder.name}").exists()
    assert "Nothing was installed" in caught.value.what
    assert caught.value.next_step
    return caught.value


def kept(release: dict[str, Any]) -> Path:
    """What was fetched for it."""
    path: Path = environment.uv_path(release)
    return path


@pytest.mark.parametrize("at", [-200, 500], ids=["in the directory", "in a file"])
@pytest.mark.usefixtures("served")
def test_a_flipped_bit_is_named_and_the_next_deploy_installs(
    spec: dict[str, Any], made: Path, at: int
) -> None:
    content = made.read_bytes()
    flip(made, at=at)
    fault = refused(spec, "echo-engine")
    assert "other bytes than the lock names" in fault.what
    assert "corral lock --update echo" in fault.next_step
    made.write_bytes(content)
    build.build(spec)
    assert Path(spec["folder"]).is_dir()
    assert not kept(spec).exists()


def test_a_mirror_that_lies_about_a_wheel_and_its_digest_is_refused(
    spec: dict[str, Any], served: Index
) -> None:
    another(served, "echo_engine", {"echo_engine.py": "print('somebody else')"})
    fault = refused(spec, "echo-engine(?s:.*)Hash mismatch")
    assert "other bytes than the lock names" in fault.what


@pytest.mark.parametrize("status", [403, 500, 503])
def test_an_index_that_refuses_is_named(spec: dict[str, Any], served: Index, status: int) -> None:
    served.refuses = status
    fault = refused(spec, served.url)
    assert "the index cannot be reached, or refuses" in fault.what
    assert "engine_sources" in fault.next_step


def test_an_index_that_is_down_is_named(spec: dict[str, Any]) -> None:
    gone = {**spec["artifact"], "index": "http://127.0.0.1:9/simple"}
    fault = refused({**spec, "artifact": gone}, "127.0.0.1:9")
    assert "the index cannot be reached, or refuses" in fault.what


def test_an_index_that_lacks_a_distribution_is_named(spec: dict[str, Any], served: Index) -> None:
    served.digests.clear()
    fault = refused(spec, "echo-engine")
    assert "lacks a locked distribution" in fault.what


def test_a_folder_with_wheels_needs_no_index(spec: dict[str, Any], made: Path) -> None:
    artifact = {**spec["artifact"], "index": None, "find_links": made.parent.as_uri()}
    build.build({**spec, "artifact": artifact})
    assert Path(spec["folder"]).is_dir()


def configure_pip(monkeypatch: pytest.MonkeyPatch, file: Path, text: str) -> None:
    """The host's pip.conf, and a pip that reads it: uv itself is not installed by one here."""
    file.write_text(text)
    own = file.with_name("pip")
    subprocess.run(["/usr/bin/python3", "-I", "-m", "venv", own], check=True)
    monkeypatch.setattr(
        uv_module.Uv, "pip", lambda _: [str(own / "bin" / "python"), "-I", "-m", "pip"]
    )
    before = uv_module.Uv.environment
    monkeypatch.setattr(
        uv_module.Uv, "environment", lambda self: {**before(self), "PIP_CONFIG_FILE": str(file)}
    )


def test_without_a_source_the_index_is_that_of_the_hosts_pip(
    spec: dict[str, Any], served: Index, tmp_path: Path, public: None, monkeypatch: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    del public
    url = served.url.replace("://", "://somebody:secret-word@")
    configure_pip(monkeypatch, tmp_path / "pip.conf", f"[global]\nindex-url = {url}\n")
    build.build({**spec, "artifact": {**spec["artifact"], "index": None}})
    assert Path(spec["folder"]).is_dir()
    assert any(path.endswith(".whl") for path in served.asked)
    assert "secret-word" not in "".join(capsys.readouterr())


def test_a_pip_conf_that_cannot_be_read_is_named(
    spec: dict[str, Any], tmp_path: Path, public: None, monkeypatch: Any
) -> None:
    del public
    configure_pip(monkeypatch, tmp_path / "pip.conf", "index-url = x\n")
    refused({**spec, "artifact": {**spec["artifact"], "index": None}}, r"pip\.conf")


def test_another_python_than_planned_is_refused(spec: dict[str, Any]) -> None:
    artifact = {**spec["artifact"], "python": "3.8"}
    with pytest.raises(tools.HostError, match=r"is Python 3\.\d+\.\d+, the plan is for 3\.8"):
        build.build({**spec, "artifact": artifact})


@pytest.fixture
def small_disk(tmp_path: Path, public: None) -> Iterator[Path]:  # noqa: ARG001
    """A disk of 4 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


@as_root
def test_a_disk_that_fills_up_while_unpacking_is_named(
    spec: dict[str, Any], made: Path, served: Index, small_disk: Path
) -> None:
    large = another(served, "large", {"large.bin": os.urandom(6 * 2**20).hex()})
    there = small_disk / "engines" / "echo" / Path(spec["folder"]).name
    limits = {**spec["limits"], "unpacked_bytes": 2**20}
    fault = refused(
        {**pinned(spec, made, large), "folder": str(there), "limits": limits}, str(small_disk)
    )
    assert "the disk is full" in fault.what
    assert fault.next_step.startswith("free space there, run the same deploy again")


def test_a_killed_install_goes_on_from_what_was_fetched(
    spec: dict[str, Any], made: Path, served: Index
) -> None:
    """uv is killed while the last wheel is on its way, as with the whole job."""
    slow = another(served, "slow", {"slow.py": ""})
    wanted = pinned(spec, made, slow)
    served.hold(slow.name)
    faults: list[BaseException] = []

    def attempt() -> None:
        try:
            build.build(wanted)
        except tools.HostError as fault:
            faults.append(fault)

    thread = threading.Thread(target=attempt)
    thread.start()
    wait_for(
        lambda: served.held.is_set() and is_unpacked(wanted), "one is unpacked, one is awaited"
    )
    for process in Path("/proc").glob("[0-9]*"):
        if b"requirements.txt" in read(process / "cmdline") and here(process):
            os.kill(int(process.name), signal.SIGKILL)
    thread.join()
    served.release()
    assert faults
    assert not Path(wanted["folder"]).exists()
    assert is_unpacked(wanted)
    served.asked.clear()
    build.build(wanted)
    fetched = [path for path in served.asked if path.endswith(".whl")]
    assert fetched == [f"/{slow.name}"]


def is_unpacked(release: dict[str, Any]) -> bool:
    return any(kept(release).rglob("echo_engine.py"))


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def here(process: Path) -> bool:
    """Whether it is a child of this test."""
    fields = read(process / "stat").rpartition(b")")[2].split()
    return bool(fields) and int(fields[1]) == os.getpid()


def test_what_is_fetched_is_closed_to_builds_of_others_and_pruned(
    spec: dict[str, Any], served: Index
) -> None:
    served.refuses = 503
    refused(spec, served.url)
    folder = kept(spec)
    assert folder.stat().st_mode & 0o777 == 0o700
    engines = Path(spec["folder"]).parent.parent
    plan = {"paths": {"state": spec["state"], "engines": str(engines)}, "releases": [spec]}
    assert prune.prune(plan) == []
    assert folder.is_dir()
    assert str(folder) in prune.prune({**plan, "releases": []})
    assert not folder.exists()


def test_a_folder_that_a_killed_job_left_open_is_closed_by_the_next_build(
    spec: dict[str, Any],
) -> None:
    engines = Path(spec["folder"]).parent.parent
    left = engines / "other" / ".uv-key"
    helper_module("system.modes").open_folder(left)
    build.build(spec)
    assert left.stat().st_mode & 0o777 == 0o700


@pytest.fixture
def bootstrap(
    tmp_path: Path,
    public: None,  # noqa: ARG001
) -> Iterator[tuple[Any, Index]]:
    """uv as a small wheel of its own on an index, and a home for pip."""
    program = "#!/bin/sh\necho uv 9.9 made-up\n"
    own = make_wheel(tmp_path / "w", "uv", {"uv-9.9.data/scripts/uv": program}, version="9.9")
    artifact = {"installer": requirement(own).strip(), "find_links": None}
    helper = helper_module("release.build_user")
    release = {
        "engine": "echo", "key": "k", "folder": str(tmp_path / "engines/echo/k"),
        "state": str(tmp_path / "state"), "compiler_cache": str(tmp_path / "cc"),
        "artifact": artifact,
    }  # fmt: skip
    with serving(own.parent) as server, helper.build_home(release) as home:
        artifact["index"] = server.url
        with environment.uv_folder(release) as folder:
            yield uv_module.Uv(release, folder, home), server


def test_pip_installs_the_pinned_uv_once(bootstrap: tuple[Any, Index]) -> None:
    found, server = bootstrap
    found.ensure()
    assert found.said_version() == "9.9"
    server.asked.clear()
    found.ensure()
    assert server.asked == []


def test_another_uv_than_the_pinned_one_is_refused(bootstrap: tuple[Any, Index]) -> None:
    found, server = bootstrap
    (own,) = server.folder.glob("uv-*.whl")
    flip(own)
    server.digests[own.name] = ""
    with pytest.raises(tools.HostError, match="other bytes than the lock names"):
        found.ensure()
    assert found.said_version() is None
