"""A release that is a Python environment: what uv installs, and what of it no release has."""

from __future__ import annotations

import os
import subprocess
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest

from corral.catalog.entries import Engine, Platform
from corral.errors import CorralError
from corral.nvidia.decision import gpu_setup
from corral.plan.release import CmakeBuild, MadeImage, OwnImage, PythonEnvironment
from corral.planning.fleet import plan_fleet
from lab.wheel_index import Index
from tests.samples import CHAT, GIB, GPU, host
from tests.third_engine import wheel
from tests.unit.engines.test_third_engine import (
    ASKED,
    URL,
    build,
    environment,
    pinned,
    plan,
    planner,
    tools,
)
from tests.unit.engines.test_third_engine import made as made
from tests.unit.engines.test_third_engine import registered as registered
from tests.unit.engines.test_third_engine import served as served
from tests.unit.engines.test_third_engine import spec as spec
from tests.unit.engines.test_third_engine import uv as uv
from tests.unit.helper_modules import helper_module
from tests.wheels import make_wheel, sha256

pytestmark = pytest.mark.slow

archive = helper_module("release.archive")

ENTRY_POINTS = """[console_scripts]
tell = teller.words:Teller.tell
echo-engine=echo_engine:main [extra]

[gui_scripts]
window = teller.words:window

[vllm.plugins]
one = teller:plugin
"""
TELLER = """import sys
class Teller:
    def tell():
        print("runs", sys.executable, *sys.argv[1:])
        return 3
"""


def another(served: Index, name: str, members: dict[str, str], entry_points: str = "") -> Path:
    """A wheel beside the engine's, on the same index."""
    path = make_wheel(served.folder, name, members, entry_points=entry_points)
    served.digests[path.name] = sha256(path)
    return path


def installed(spec: dict[str, Any], *wheels: Path) -> Path:
    """The folder in which the helper makes the environment of these wheels."""
    staging = Path(spec["folder"]).with_name(".staging-test")
    helper_module("system.modes").open_folder(staging)
    environment.make(pinned(spec, *wheels), staging)
    return staging


def test_programs_of_packages_are_in_bin_and_run_by_the_releases_python(
    spec: dict[str, Any], made: Path, served: Index
) -> None:
    members = {
        "teller/__init__.py": "", "teller/words.py": TELLER,
        "teller-1.0.data/scripts/raw": "#!python\nimport sys\nprint('raw', sys.executable)\n",
        "teller-1.0.data/scripts/shell": "#!/bin/sh\necho shell\n",
        "teller-1.0.data/purelib/beside.py": "", "teller-1.0.data/platlib/deep/beside.py": "",
        "teller-1.0.data/data/share/teller/text": "",
    }  # fmt: skip
    staging = installed(spec, made, another(served, "teller", members, ENTRY_POINTS))
    assert sorted(path.name for path in (staging / "bin").iterdir()) == [
        *("echo-engine", "python", "raw", "shell", "tell", "window"),
    ]
    (packages,) = (staging / "lib").glob("python3*/site-packages")
    assert {"beside.py", "deep", "teller", "echo_engine.py"} < {p.name for p in packages.iterdir()}
    assert (staging / "share" / "teller" / "text").is_file()
    assert not list(staging.rglob("*.whl"))
    assert not [path for path in staging.rglob("*") if path.is_symlink()]
    (module,) = packages.glob("__pycache__/echo_engine.*.pyc")
    # Flags of PEP 552: by hash, unchecked.
    assert module.read_bytes()[4:8] == b"\1\0\0\0"
    assert f"{spec['folder']}/lib/".encode() in module.read_bytes()
    assert b"staging" not in module.read_bytes()
    # Where it stands once it is whole, with the modes of a release.
    release = staging.with_name("a release")
    helper_module("system.modes").open_release(staging)
    staging.rename(release)
    python = f"{release}/bin/python"
    done = subprocess.run(
        [release / "bin" / "tell", "a b", "c"], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == (f"runs {python} a b c\n", 3), done.stderr
    for name, said in (("raw", f"raw {python}\n"), ("shell", "shell\n")):
        assert subprocess.check_output([release / "bin" / name], text=True) == said
    version = subprocess.check_output([release / "bin" / "echo-engine", "--version"], text=True)
    assert version.split()[1] == wheel.VERSION
    assert "staging" not in (release / "pyvenv.cfg").read_text()


def test_two_packages_may_name_one_program_and_bring_one_file(
    spec: dict[str, Any], made: Path, served: Index
) -> None:
    named = "[console_scripts]\nsame = {0}:main\n"
    both = [
        another(served, name, {"common/__init__.py": "", f"{name}.py": ""}, named.format(name))
        for name in ("first", "second")
    ]
    staging = installed(spec, made, *both)
    assert " import main" in (staging / "bin" / "same").read_text()
    assert not (staging / "bin" / "python").read_bytes().startswith(b"#!")


def test_an_environment_has_what_the_plan_allows_and_no_more(
    spec: dict[str, Any], made: Path, served: Index
) -> None:
    bomb = another(served, "bomb", {f"bomb/{n}": "0" * 400_000 for n in range(9)})
    assert installed(spec, made, bomb).is_dir()
    for limits in ({"unpacked_files": 8}, {"unpacked_bytes": 3_000_000}):
        most = {**spec, "limits": {**spec["limits"], **limits}}
        with pytest.raises(tools.HostError, match="more than .*raise unpacked_bytes or unpacked_"):
            installed(most, made, bomb)


def test_a_full_disk_is_told_before_anything_is_fetched(
    spec: dict[str, Any], made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = os.statvfs_result((4096, 4096, 100, 0, 0, 0, 0, 0, 0, 255))
    monkeypatch.setattr(helper_module("release.limits").os, "statvfs", lambda _: full)
    monkeypatch.setattr(environment.Uv, "install", lambda *_: pytest.fail("it fetches"))
    with pytest.raises(tools.HostError, match="disk full; nothing was installed.*free space there"):
        installed(spec, made)


@pytest.mark.parametrize(
    "name",
    [
        "echo_engine-1.0.data/data/manifest.json",
        "echo_engine-1.0.data/data/bin/python",
        "echo_engine-1.0.data/scripts/python",
        "echo_engine-1.0.data/x/y",
        "echo_engine.py/x",
        "a\nb.py",
    ],
)
def test_a_wheel_puts_nothing_anywhere_else(spec: dict[str, Any], served: Index, name: str) -> None:
    source = wheel.SERVER.read_text()
    odd = another(served, "echo_engine", {"echo_engine.py": source, name: "x"})
    with pytest.raises(tools.HostError, match=r"Nothing was installed(?s:.*)Next: "):
        installed(spec, odd)


@pytest.mark.parametrize(
    "name", ["../../outside", "/etc/outside", "echo_engine-1.0.data/data/../../outside"]
)
def test_a_wheel_reaches_nothing_outside_of_the_environment(
    spec: dict[str, Any], served: Index, name: str
) -> None:
    """Such a file is left out, or stays inside."""
    source = wheel.SERVER.read_text()
    staging = installed(spec, another(served, "echo_engine", {"echo_engine.py": source, name: "x"}))
    found = [*Path("/etc").glob("outside*"), *Path(spec["state"]).parent.rglob("outside*")]
    # Its own copy of the wheel, unpacked, goes with it.
    assert not [path for path in found if staging.parent not in path.parents]


def test_the_catalog_says_how_large_an_environment_is(made: Path) -> None:
    (release,) = plan(made).releases
    assert release.limits.unpacked_bytes == release.installed_bytes == 2 * GIB
    assert release.limits.unpacked_files == 100_000
    more = f"unpacked_bytes = {11 * GIB}\nunpacked_files = 70_000\n"
    text = wheel.catalog_entry(URL, more)
    known, engine = planner(made), Engine.model_validate(tomllib.loads(text))
    wider = known.catalog.model_copy(update={"engines": {**known.catalog.engines, "echo": engine}})
    (raised,) = known.model_copy(update={"catalog": wider}).releases(host(ASKED))
    assert raised.limits.model_dump() == {"unpacked_bytes": 11 * GIB, "unpacked_files": 70_000}
    assert (raised.installed_bytes, raised.key) == (11 * GIB, release.key)


def test_a_platform_with_another_python_is_another_release_or_none(made: Path) -> None:
    known = planner(made)
    key = known.releases(host(ASKED))[0].key
    for python in ("3.8", "3.12"):
        platform = Platform(compiler="12", c_library="2.36", python=python)
        there = known.catalog.model_copy(update={"platforms": {"debian-12": platform}})
        other = known.model_copy(update={"catalog": there})
        if python == "3.8":
            with pytest.raises(CorralError, match=r"runs on Python >=3\.9, and debian-12 has 3"):
                other.plan_host(host(ASKED))
        else:
            assert other.releases(host(ASKED))[0].key != key


@pytest.mark.parametrize(("backend", "data"), [("cuda", {}), ("cpu", {"gpus": GPU})])
def test_wheels_for_another_back_end_are_refused(
    made: Path, backend: str, data: dict[str, Any]
) -> None:
    known = planner(made)
    text = wheel.catalog_entry(URL, f'backend = "{backend}"\n')
    engine = Engine.model_validate(tomllib.loads(text))
    wider = known.catalog.model_copy(update={"engines": {**known.catalog.engines, "echo": engine}})
    with pytest.raises(CorralError, match=f"engine echo is for {backend}, the host's back end is"):
        known.model_copy(update={"catalog": wider}).releases(host(ASKED, **data))


def test_a_host_gets_the_packages_that_its_releases_are_made_with(made: Path) -> None:
    known = planner(made)
    only = known.plan_host(host(ASKED)).packages
    assert only == ("aria2", "ca-certificates", "nftables", "python3-venv", "zstd")
    both = known.plan_host(host(ASKED, CHAT | {"port": 8002})).packages
    assert {*only, "cmake", "g++"} < {*both}
    fleet = plan_fleet([host(ASKED, name="a"), host(name="b", builder=True)], known)
    assert {"python3-venv", "cmake"} < {*fleet.plan("b").packages}


def test_who_unpacks_for_others_fetches_wheels_from_where_it_fetches_sources(made: Path) -> None:
    mirror = "https://mirror.example.com/wheels"
    sources = {"echo": mirror}
    both = [host(ASKED, name="a"), host(name="b", builder=True, engine_sources=sources)]
    fleet = plan_fleet(both, planner(made))
    (release,) = fleet.plan("b").builds
    assert isinstance(release.artifact, PythonEnvironment)
    assert (release.artifact.index, release.artifact.find_links) == (mirror, None)
    assert release.key == fleet.plan("a").releases[0].key


def test_a_cuda_release_of_wheels_needs_no_toolkit(made: Path) -> None:
    """Wheels bring CUDA's libraries; a host that has only such releases installs no nvcc."""
    release = plan(made).releases[0].model_copy(update={"backend": "cuda"})
    spec = host(ASKED, gpus=GPU).spec
    found = gpu_setup(spec, planner(made).catalog, [release])
    assert found
    assert found.toolkit is None
    assert len(found.engines) == 1


def test_every_kind_of_artifact_is_made_by_the_helper() -> None:
    kinds = {
        one.model_fields["kind"].default
        for one in (CmakeBuild, PythonEnvironment, MadeImage, OwnImage)
    }
    assert set(build.MAKERS) == kinds
    with pytest.raises(tools.HostError, match="the helper makes no image.*deploy from the check"):
        build.build_release({"engine": "x", "key": "y", "artifact": {"kind": "image"}})


LONG = f"lib/{'k' * 130}.cubin"
LONGER = "/".join(["d" * 120] * 4 + ["f" * 120])


def take_all(tar: Path, staging: Path) -> None:
    with tar.open("rb") as file:
        archive.take_all(file, staging, 10**6, 10)


def test_long_names_come_through(tmp_path: Path) -> None:
    names = ("bin/short", LONG, LONGER, f"lib/{'ü' * 60}", "lib/short")
    folder, staging = tmp_path / "release", tmp_path / "staging"
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    with (tmp_path / "tar").open("wb") as file:
        archive.write_tar(folder, file)
    take_all(tmp_path / "tar", staging)
    found = [path for path in staging.rglob("*") if path.is_file()]
    assert {str(p.relative_to(staging)): p.read_text() for p in found} == {n: n for n in names}


def header(path: Path, entry: tarfile.TarInfo) -> Path:
    path.write_bytes(entry.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    return path


@pytest.mark.parametrize("size", [0, 10**9])
def test_a_long_name_is_no_longer_than_a_path(tmp_path: Path, size: int) -> None:
    entry = tarfile.TarInfo("././@LongLink")
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, size
    with pytest.raises(tarfile.TarError, match="longer than any"):
        take_all(header(tmp_path / "tar", entry), tmp_path / "staging")


@pytest.mark.parametrize("name", ["../" * 50 + "etc/x", "/" + "x" * 120, "a/" * 60 + "/b"])
def test_a_long_name_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    tar = header(tmp_path / "tar", tarfile.TarInfo(name))
    with pytest.raises(tarfile.TarError, match="is not a plain file inside of it"):
        take_all(tar, tmp_path / "staging")
