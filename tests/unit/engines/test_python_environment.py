"""A release that is a Python environment: what its wheels may bring, and how much of it."""

from __future__ import annotations

import os
import subprocess
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from corral.catalog.entries import Engine
from corral.nvidia.decision import gpu_setup
from corral.plan.release import CmakeBuild, PythonEnvironment
from corral.planning.fleet import plan_fleet
from tests.samples import GIB, GPU, host
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
from tests.unit.engines.test_third_engine import spec as spec
from tests.unit.helper_modules import helper_module

archive = helper_module("release.archive")

ENTRY_POINTS = """[console_scripts]
tell = teller.words:Teller.tell
echo-engine=echo_engine:main [extra]

[gui_scripts]
window = teller:window

[vllm.plugins]
one = teller:plugin
"""
TELLER = """import sys
class Teller:
    def tell():
        print("runs", sys.executable, *sys.argv[1:])
        return 3
"""


def another(made: Path, name: str, members: dict[str, str]) -> Path:
    """A wheel beside the engine's."""
    path = made.with_name(f"{name}-1.0-py3-none-any.whl")
    with zipfile.ZipFile(path, "w") as file:
        for member, text in members.items():
            file.writestr(zipfile.ZipInfo(member), text)
    return path


def test_programs_of_packages_are_in_bin_and_run_by_the_releases_python(
    spec: dict[str, Any], made: Path, tmp_path: Path
) -> None:
    teller = another(made, "teller", {
        "teller/__init__.py": "", "teller/words.py": TELLER,
        "teller-1.0.dist-info/entry_points.txt": ENTRY_POINTS,
        "teller-1.0.data/scripts/raw": "#!python\nimport sys\nprint('raw', sys.executable)\n",
        "teller-1.0.data/scripts/shell": "#!/bin/sh\necho shell\n",
        "teller-1.0.data/purelib/beside.py": "", "teller-1.0.data/platlib/deep/beside.py": "",
        "teller-1.0.data/data/share/teller/text": "",
    })  # fmt: skip
    staging = tmp_path / "a folder" / "staging"
    environment.make(pinned(spec, made, teller), staging)
    assert sorted(path.name for path in (staging / "bin").iterdir()) == [
        *("echo-engine", "python", "raw", "shell", "tell"),
    ]
    (packages,) = (staging / "lib").glob("python3*/site-packages")
    assert {"beside.py", "deep", "teller", "echo_engine.py"} < {p.name for p in packages.iterdir()}
    assert (staging / "share" / "teller" / "text").is_file()
    assert not list(staging.rglob("*.whl"))
    # Where it stands once it is whole, with the modes of a release.
    release = staging.with_name("release")
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


def test_two_packages_may_name_one_program_and_bring_one_file(
    spec: dict[str, Any], made: Path
) -> None:
    named = "[console_scripts]\nsame = {0}:main\npython = {0}:main\n"
    both = [
        another(made, name, {
            "common/__init__.py": "", f"{name}.py": "",
            f"{name}-1.0.dist-info/entry_points.txt": named.format(name),
        })
        for name in ("first", "second")
    ]  # fmt: skip
    staging = Path(spec["state"])
    environment.make(pinned(spec, made, *both), staging)
    assert "from first import main" in (staging / "bin" / "same").read_text()
    assert not (staging / "bin" / "python").read_bytes().startswith(b"#!")


@pytest.mark.parametrize(("one", "other"), [("", "x"), ("x", ""), ("a\n", "b\n"), ("a", "ab")])
def test_a_file_that_two_wheels_bring_in_two_ways_is_refused(
    spec: dict[str, Any], made: Path, one: str, other: str
) -> None:
    both = [
        another(made, name, {"common/__init__.py": text})
        for name, text in (("first", one), ("second", other))
    ]
    with pytest.raises(tools.HostError, match=r"second-1\.0.*cannot be unpacked"):
        environment.make(pinned(spec, *both), Path(spec["state"]))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[console_scripts]\n../x = a:b\n", "is no program"),
        ("[console_scripts]\nx = a:b; import os\n", "is no program"),
        ("[console_scripts]\nx = a\n", "is no program"),
        ("[console_scripts]\nx = a:b\nx = a:c\n", "is not readable"),
        ("x = a:b\n", "is not readable"),
        (" " * 1024**2 + " ", "is larger than any"),
    ],
    ids=["outside", "code", "module", "twice", "no group", "large"],
)
def test_a_package_names_programs_and_nothing_else(
    spec: dict[str, Any], made: Path, text: str, said: str
) -> None:
    odd = another(made, "odd", {"odd-1.0.dist-info/entry_points.txt": text})
    with pytest.raises(tools.HostError, match=rf"odd-1\.0\.dist-info/entry_points\.txt .*{said}"):
        environment.make(pinned(spec, made, odd), Path(spec["state"]))


@pytest.mark.parametrize("limits", [{"unpacked_files": 8}, {"unpacked_bytes": 22_000}])
def test_all_wheels_together_have_what_the_plan_allows_and_no_more(
    spec: dict[str, Any], made: Path, limits: dict[str, int]
) -> None:
    """Each of them alone would pass; the second is refused before a byte of it is written."""
    bomb = another(made, "bomb", {f"bomb/{n}": "0" * 4000 for n in range(5)})
    most = {**spec, "limits": {**spec["limits"], **limits}}
    environment.make(pinned(most, bomb), Path(spec["state"]) / "alone")
    staging = Path(spec["state"]) / "both"
    with pytest.raises(tools.HostError, match="bomb-1.0.*raise unpacked_bytes or unpacked_files"):
        environment.make(pinned(most, made, bomb), staging)
    assert not list(staging.rglob("bomb"))


def test_a_full_disk_is_told_before_anything_is_fetched(
    spec: dict[str, Any], made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = os.statvfs_result((4096, 4096, 100, 0, 0, 0, 0, 0, 0, 255))
    monkeypatch.setattr(environment.os, "statvfs", lambda _: full)
    monkeypatch.setattr(environment, "fetch", lambda *_: pytest.fail("it fetches"))
    with pytest.raises(tools.HostError, match="disk full; nothing was installed.*free space there"):
        environment.make(pinned(spec, made), Path(spec["state"]))


def test_the_catalog_allows_four_times_the_wheels_unless_it_says_more(made: Path) -> None:
    (release,) = plan(made).releases
    wheels = made.stat().st_size
    assert release.limits.unpacked_bytes == release.installed_bytes == 4 * wheels + 64 * 1024**2
    assert release.limits.unpacked_files == 100_000
    more = f"unpacked_bytes = {11 * GIB}\nunpacked_files = 70_000\nurl ="
    text = wheel.catalog_entry(made, URL).replace("url =", more)
    known, engine = planner(made), Engine.model_validate(tomllib.loads(text))
    wider = known.catalog.model_copy(update={"engines": {**known.catalog.engines, "echo": engine}})
    (raised,) = known.model_copy(update={"catalog": wider}).releases(host(ASKED))
    assert raised.limits.model_dump() == {"unpacked_bytes": 11 * GIB, "unpacked_files": 70_000}
    assert (raised.installed_bytes, raised.key) == (11 * GIB, release.key)


def test_who_unpacks_for_others_fetches_wheels_from_where_it_fetches_sources(made: Path) -> None:
    mirror = "https://mirror.example.com/wheels"
    sources = {"echo": mirror}
    both = [host(ASKED, name="a"), host(name="b", builder=True, engine_sources=sources)]
    fleet = plan_fleet(both, planner(made))
    (release,) = fleet.plan("b").builds
    assert isinstance(release.artifact, PythonEnvironment)
    assert [one.url for one in release.artifact.wheels] == [f"{mirror}/{wheel.NAME}"]
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
    kinds = {one.model_fields["kind"].default for one in (CmakeBuild, PythonEnvironment)}
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
