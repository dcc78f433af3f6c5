"""Images: the root of a distribution's packages, launchers, and files of the site's own."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lab import wheel_index
from tests.unit.helper_modules import helper_module, program

image = helper_module("release.image")
launchers = helper_module("release.launchers")
root_files = helper_module("release.root_files")
HostError = helper_module("system.commands").HostError

CONTAINER = 'for word in "$@"; do printf "%s\\n" "$word"; done'


def launched(folder: Path, *words: str, named: str = "apptainer", **variables: str) -> list[str]:
    """Words that a launcher gives the container program."""
    (folder / "release").mkdir()
    launchers.write_launchers(folder / "release", "image.squashfs", {"tool": "/app/tool"})
    program(folder / "search", named, CONTAINER)
    script = folder / "release/bin/tool"
    script.write_text(script.read_text().replace("/usr/local/sbin:", f"{folder}/search:"))
    done = subprocess.run(
        [str(script), *words], check=True, capture_output=True, text=True, cwd="/",
        env={"PATH": os.environ["PATH"], **variables},
    )  # fmt: skip
    return done.stdout.splitlines()


def test_a_launcher_runs_the_program_in_the_image(tmp_path: Path) -> None:
    said = launched(tmp_path, "--help")
    assert said[-3:] == [str(tmp_path / "release/image.squashfs"), "/app/tool", "--help"]
    assert said[:2] == ["--quiet", "exec"]


def test_singularity_unpacks_by_another_option(tmp_path: Path) -> None:
    said = launched(tmp_path, "--help", named="singularity", CORRAL_CONTAINER_PROGRAM="singularity")
    mounts = os.access("/dev/fuse", os.W_OK) and shutil.which("squashfuse")
    assert ("--tmp-sandbox" in said) is not bool(mounts)
    assert "--unsquash" not in said


def test_folders_of_its_arguments_and_its_home_are_there(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    model = tmp_path / "model.gguf"
    said = launched(tmp_path, "--model", str(model), HOME=str(tmp_path / "home"))
    binds = [said[i + 1] for i, word in enumerate(said) if word == "--bind"]
    assert binds == [str(tmp_path), str(tmp_path / "home")]


def test_the_folder_that_a_link_leads_to_is_there(tmp_path: Path) -> None:
    for name in ("weights", "proof"):
        (tmp_path / name).mkdir()
    (tmp_path / "weights/model.gguf").write_bytes(b"GGUF")
    link = tmp_path / "proof/model.gguf"
    link.symlink_to(tmp_path / "weights/model.gguf")
    said = launched(tmp_path, "--model", str(link))
    binds = [said[i + 1] for i, word in enumerate(said) if word == "--bind"]
    assert binds == [str(tmp_path / "proof"), str(tmp_path / "weights")]


def test_a_folder_that_cannot_be_written_as_a_bind_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a:b").mkdir()
    said = launched(tmp_path, f"{tmp_path}/a:b/model.gguf")
    assert "--bind" not in said


def test_a_host_without_a_container_program_says_so(tmp_path: Path) -> None:
    launchers.write_launchers(tmp_path, "image.sif", {"tool": "/app/tool"})
    script = tmp_path / "bin/tool"
    text = script.read_text().replace("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "/none")
    script.write_text(text.replace(":/sbin:/bin", ""))
    done = subprocess.run([str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Next: install one of them" in done.stderr


def own(source: Path | str, content: bytes = b"sif", most: int = 100) -> dict[str, Any]:
    artifact = {
        "kind": "own-image", "source": str(source), "image": "image.sif",
        "program": "/app/llama-server", "sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip
    return {
        "artifact": artifact, "engine": "site", "kind": "llama.cpp", "key": "k",
        "limits": {"unpacked_bytes": most},
    }  # fmt: skip


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of the site's, and a host on which only the server is in it."""
    source = tmp_path / "site.sif"
    source.write_bytes(b"sif")

    def answer(path: Path, *_: Any) -> tuple[str, int]:
        return "", 0 if path.name == "llama-bench" else 255

    monkeypatch.setattr(image, "ask", answer)
    return source


def installed(release: dict[str, Any], folder: Path) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    def keep(_: Any, staging: Path, *__: Any) -> None:
        seen["files"] = {p.name: p.read_bytes() for p in staging.rglob("*") if p.is_file()}

    image.own_image({**release, "folder": str(folder / "release")}, keep)
    return seen


def test_an_image_of_the_site_is_copied_with_launchers_for_what_is_in_it(
    site: Path, tmp_path: Path
) -> None:
    files = installed(own(site), tmp_path)["files"]
    assert files["image.sif"] == b"sif"
    assert set(files) == {"image.sif", "llama-server", "llama-bench"}


def test_another_file_than_the_locked_one_is_refused(site: Path, tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"corral.lock has .* Nothing was installed") as refused:
        installed(own(site, b"other"), tmp_path)
    assert "corral lock" in refused.value.next_step
    assert not (tmp_path / "release").exists()


def test_a_missing_or_large_file_is_refused(site: Path, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="is not on this host"):
        installed(own(tmp_path / "none.sif"), tmp_path)
    with pytest.raises(HostError, match="is larger than"):
        installed(own(site, most=2), tmp_path)


def test_a_file_that_does_not_arrive_or_is_too_large_is_named(site: Path, tmp_path: Path) -> None:
    with wheel_index.serving(site.parent) as server:
        url = f"http://{server.bind}:{server.server_port}"
        image.obtain(own(f"{url}/{site.name}"), tmp_path / "arrived")
        assert (tmp_path / "arrived").read_bytes() == b"sif"
        with pytest.raises(HostError, match=f"{url}/{site.name} is larger than"):
            image.obtain(own(f"{url}/{site.name}", most=2), tmp_path / "large")
        with pytest.raises(HostError, match="/dev: disk full"):
            image.obtain(own(f"{url}/{site.name}"), Path("/dev/full"))
        with pytest.raises(HostError, match=f"{url}/none.sif cannot be fetched: curl: .*404"):
            image.obtain(own(f"{url}/none.sif", most=10_000), tmp_path / "none")
    with pytest.raises(HostError, match="Nothing was installed") as refused:
        image.obtain(own(f"{url}/{site.name}"), tmp_path / "none")
    assert "reaches it" in refused.value.next_step


def test_the_site_may_replace_its_file_later(site: Path, tmp_path: Path) -> None:
    target = tmp_path / "image.sif"
    image.obtain(own(site), target)
    site.write_bytes(b"new")
    assert target.read_bytes() == b"sif"


PACKAGES = {
    "base": ("1.0", "", ""),
    "libc6": ("2.41", "libgcc", ""),
    "libgcc": ("14", "libc6 (>= 2.30), gone | base:any", "libold"),
}


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {name: (version, needs) for name, (version, needs, _) in PACKAGES.items()}
    monkeypatch.setattr(root_files, "installed", lambda: found)


@pytest.mark.usefixtures("packages")
def test_packages_come_with_what_they_depend_on() -> None:
    assert root_files.with_dependencies(["libc6"]) == {
        "base": "1.0",
        "libc6": "2.41",
        "libgcc": "14",
    }
    with pytest.raises(HostError, match="package none, whose files an image needs"):
        root_files.with_dependencies(["none"])


def test_a_file_that_differs_from_its_package_is_no_part_of_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin", "dpkg", "echo '??5??????   /usr/bin/ldd'; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    with pytest.raises(HostError, match="/usr/bin/ldd: not as in package libc-bin") as refused:
        root_files.refuse_changed("libc-bin")
    assert "--reinstall libc-bin" in refused.value.next_step
    program(tmp_path / "bin", "dpkg", "echo '??5?????? c /etc/ld.so.conf'; exit 1")
    root_files.refuse_changed("libc-bin")


@pytest.mark.parametrize(("before", "after"), [("", ""), ("/opt/lib", "/opt/lib:")])
def test_programs_in_an_image_look_for_the_drivers_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str
) -> None:
    """Where --nv puts them, which the container program itself leaves to the image to say."""
    monkeypatch.setattr(root_files, "installed", dict)
    assert root_files.make(tmp_path / "root", []) == {}
    root = tmp_path / "root/.singularity.d"
    assert (root / "libs").is_dir()
    script = f". {root}/env/99-base.sh; env"
    done = subprocess.run(
        ["/bin/sh", "-c", script], check=True, capture_output=True, text=True,
        env={"LD_LIBRARY_PATH": before} if before else {},
    )  # fmt: skip
    assert f"LD_LIBRARY_PATH={after}/.singularity.d/libs" in done.stdout.splitlines()


def test_files_of_a_merged_usr_are_in_usr(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "usr/lib").mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    root_files.copy("/lib64/ld-linux-x86-64.so.2", root)
    assert (root / "usr/lib64/ld-linux-x86-64.so.2").exists()
    assert not (root / "lib64").exists()


def test_modes_do_not_depend_on_the_host(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir(mode=0o700)
    (tmp_path / "folder/tool").write_text("")
    (tmp_path / "folder/tool").chmod(0o4711)
    (tmp_path / "folder/text").write_text("")
    (tmp_path / "folder/text").chmod(0o600)
    root_files.normalize(tmp_path)
    modes = {p.name: oct(p.stat().st_mode & 0o7777) for p in tmp_path.rglob("*")}
    assert modes == {"folder": "0o755", "tool": "0o755", "text": "0o644"}
