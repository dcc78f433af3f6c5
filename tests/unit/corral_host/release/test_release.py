"""What a release must prove before it is installed: own libraries, its commit, an answer."""

from __future__ import annotations

import errno
import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.unit import helper_hosts as hosts
from tests.unit import release_samples as samples
from tests.unit.helper_modules import helper_module
from tests.unit.release_samples import COMMIT, Engine, install, release

pytestmark = pytest.mark.slow

done = helper_module("release.manifest")
libraries = helper_module("release.libraries")
programs = helper_module("release.programs")
llama = helper_module("engines.llama.programs")
HostError = helper_module("system.commands").HostError

MAINLINE = "version: 0.5.0-dev (build 1, commit c0ffee0)"
IK = "version: 1 (c0ffee00)"


def staged(engine: Engine, folder: Path, **made: Any) -> Path:
    """A release before its proof."""
    folder.mkdir()
    samples.assemble({"artifact": {"targets": ["llama-server"]}}, engine, folder, **made)
    return folder


def test_a_release_resolves_from_its_own_folder(engine: Engine, tmp_path: Path) -> None:
    folder = staged(engine, tmp_path / "staging")
    assert [path.name for path in (folder / "lib").iterdir()] == ["libgomp.so.1"]
    libraries.prove_self_contained(folder, folder)


def test_a_library_from_elsewhere_is_refused(engine: Engine, tmp_path: Path) -> None:
    folder = staged(engine, tmp_path / "staging", rpath=False)
    with pytest.raises(HostError, match=r"libgomp\.so\.1 comes from /.*CMAKE_INSTALL_RPATH"):
        libraries.prove_self_contained(folder, folder)


def test_a_library_that_nobody_has_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "server").touch()
    said = "\\tlibcublas.so.13 => not found\\n\\tlibcuda.so.1 => not found\\n"
    hosts.on_path(monkeypatch, tmp_path / "path", "ldd", f"printf '{said}'")
    with pytest.raises(HostError, match=r"libcublas\.so\.13 is not found"):
        libraries.prove_self_contained(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("libc.so.6", True),
        ("libm.so.6", True),
        ("ld-linux-x86-64.so.2", True),
        ("linux-vdso.so.1", True),
        ("libcuda.so.1", True),
        ("libnvidia-ml.so.1", True),
        ("libcudart.so.13", False),
        ("libcublas.so.13", False),
        ("libcrypto.so.3", False),
        ("libstdc++.so.6", False),
    ],
)
def test_only_the_c_library_and_the_driver_stay_the_hosts(name: str, kept: bool) -> None:
    assert libraries.is_of_the_host(name) is kept


def named(folder: Path, environment: dict[str, str]) -> None:
    programs.prove_version({"kind": "llama.cpp", "commit": COMMIT}, folder, environment)


@pytest.mark.parametrize("version", [MAINLINE, IK])
def test_both_engines_name_their_commit(engine: Engine, tmp_path: Path, version: str) -> None:
    engine.make(tmp_path / "bin" / "llama-server", version=version)
    with programs.bare_environment() as environment:
        named(tmp_path, environment)


@pytest.mark.parametrize(
    "version", ["version: 1 (deadbeef)", "version: 1 (c0ffee)", "c0ffee00", "version: (unknown)"]
)
def test_another_commit_is_refused(engine: Engine, tmp_path: Path, version: str) -> None:
    engine.make(tmp_path / "bin" / "llama-server", version=version)
    with (
        programs.bare_environment() as environment,
        pytest.raises(HostError, match=f"does not name commit {COMMIT[:12]}"),
    ):
        named(tmp_path, environment)


LISTED = {"--ctx-size", "--help", "--list-devices", "--model", "--version", "-c", "-h"}


@pytest.mark.parametrize(
    ("kind", "unlisted"), [("llama.cpp", set()), ("ik_llama.cpp", {"--picky", "--unlisted"})]
)
def test_flags_are_those_of_help_and_iks_unlisted_ones(
    engine: Engine, tmp_path: Path, kind: str, unlisted: set[str]
) -> None:
    engine.make(tmp_path / "bin" / "llama-server")
    with programs.bare_environment() as environment:
        found = programs.flags({"kind": kind}, tmp_path, environment)
    assert found == sorted(LISTED | unlisted)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-h,    --help, --usage                  print usage and exit", "-h --help --usage"),
        ("         --no-slots               disables it (see --slots)", "--no-slots"),
        ("  -cram-n-min --cache-ram-n-min N ", "-cram-n-min --cache-ram-n-min"),
        ("  -mqkv,  --merge-qkv,            merge Q,K,V", "-mqkv --merge-qkv"),
        ("--fim-qwen-1.5b-default           use it", "--fim-qwen-1.5b-default"),
        ("                                  --spec-ngram-*-size-n or another", ""),
        ("  - distribute: spread", ""),
        ("-1 = infinity", ""),
    ],
)
def test_a_line_of_help_gives_its_flags(line: str, expected: str) -> None:
    listed, _ = llama.flags_of_help(line)
    assert listed == set(expected.split())


def test_the_manifest_names_every_file_and_the_receipt_stays_outside(
    engine: Engine, tmp_path: Path
) -> None:
    spec = samples.of(release(tmp_path), patches=[{"name": "one.patch", "text": "x"}])
    folder = install(spec, engine)
    manifest = done.manifest_of(spec)
    assert set(manifest["files"]) == {"bin/llama-server", "lib/libgomp.so.1"}
    assert manifest["size_bytes"] == sum(f["size_bytes"] for f in manifest["files"].values())
    assert manifest["patches"][0]["sha256"].startswith("2d711642b726")
    assert "folder" not in manifest
    assert json.loads((folder / "installed.json").read_text())["smoke"] == "24 tokens on CPU"
    done.check_contents(folder, manifest)


@pytest.mark.parametrize("damage", ["flip", "more", "less"])
def test_a_changed_release_is_not_its_manifests(
    engine: Engine, tmp_path: Path, damage: str
) -> None:
    spec = release(tmp_path)
    folder = install(spec, engine)
    library = folder / "lib" / "libgomp.so.1"
    if damage == "flip":
        content = bytearray(library.read_bytes())
        content[1000] ^= 1
        library.write_bytes(content)
    elif damage == "more":
        (folder / "lib" / "extra").touch()
    else:
        library.unlink()
    with pytest.raises(HostError, match="files differ from its manifest: lib/"):
        done.check_contents(folder, done.manifest_of(spec))


def test_a_native_release_is_whole_only_where_its_features_are(
    engine: Engine, tmp_path: Path
) -> None:
    whole = helper_module("release.whole")
    spec = release(tmp_path, native=True)
    folder = install(spec, engine)
    assert whole.release_is_whole(spec)
    manifest = done.manifest_of(spec)
    manifest["found"]["cpu"]["flags"].append("avx9000")
    done.write_json(folder / "manifest.json", manifest)
    assert not whole.release_is_whole(spec)
    assert whole.release_is_whole({**spec, "native": False})


def test_a_damaged_release_gives_way_to_a_whole_one(engine: Engine, tmp_path: Path) -> None:
    spec = release(tmp_path)
    folder = install(spec, engine)
    (folder / "bin" / "llama-server").unlink()
    for leftover in (".staging-", ".removed-"):
        folder.with_name(leftover + folder.name).mkdir()
    install(spec, engine)
    assert (folder / "bin" / "llama-server").exists()
    assert list(folder.parent.iterdir()) == [folder]


def test_what_fails_before_the_rename_leaves_nothing(tmp_path: Path) -> None:
    folders = helper_module("system.folders")
    final = tmp_path / "engines" / "one"
    with pytest.raises(FileExistsError), folders.staging_for(final) as staging:
        staging.mkdir()
    assert list(final.parent.iterdir()) == []


def test_a_full_disk_is_told_with_its_folder(tmp_path: Path) -> None:
    folders = helper_module("system.folders")
    final = tmp_path / "engines" / "one"
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(HostError, match=f"{final.parent}: disk full; nothing was installed"):
        fail_in(folders.staging_for(final), full)
    assert list(final.parent.iterdir()) == []


def fail_in(staging: AbstractContextManager[Path], fault: OSError) -> None:
    with staging as folder:
        (folder / "half").touch()
        raise fault
