"""Releases of a host: their users, and that only unused ones are removed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.unit import release_samples as samples
from tests.unit.helper_modules import helper_module
from tests.unit.release_samples import Engine

prune, releases = helper_module("release.prune"), helper_module("release.releases")
locks = helper_module("release.locks")
HostError = helper_module("system.commands").HostError


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, str]:
    return {"engines": str(tmp_path / "engines"), "state": str(tmp_path / "state")}


def folder(paths: dict[str, str], key: str) -> Path:
    """A release of 3 bytes."""
    made = Path(paths["engines"]) / "llama.cpp" / key
    (made / "bin").mkdir(parents=True)
    (made / "bin" / "llama-server").write_bytes(b"ELF")
    return made


def generation(paths: dict[str, str], release: Path, link: str, number: int = 1) -> Path:
    """A generation of the instance chat that runs from ``release``, and a link to it."""
    instance = Path(paths["state"]) / "instances" / "chat"
    made = instance / "generations" / f"g{number}"
    made.mkdir(parents=True)
    argv = [str(release / "bin" / "llama-server"), "--model", "x"]
    (made / "plan.json").write_text(json.dumps({"release": release.name, "argv": argv}))
    if link:
        (instance / link).symlink_to(f"generations/{made.name}")
    return instance


def plan(paths: dict[str, str], *keys: str, builds: tuple[str, ...] = ()) -> dict[str, Any]:
    def named(key: str) -> dict[str, str]:
        return {"key": key, "folder": f"{paths['engines']}/llama.cpp/{key}"}

    releases, built = [named(key) for key in keys], [named(key) for key in builds]
    return {"paths": paths, "releases": releases, "builds": built}


def test_each_release_is_told_with_its_users(
    paths: dict[str, str], tmp_path: Path, engine: Engine
) -> None:
    spec = samples.release(tmp_path)
    installed = samples.install(spec, engine)
    old, lost = folder(paths, "old"), folder(paths, "lost")
    generation(paths, installed, "current")
    generation(paths, old, "previous", 2)
    generation(paths, old, "pinned-summer", 3)
    rows = {row["key"]: row for row in releases.releases(paths)}
    assert rows[spec["key"]]["users"] == ["chat (current)"]
    assert rows["old"]["users"] == ["chat (pinned-summer)", "chat (previous)"]
    assert rows["lost"] == {
        "engine": "llama.cpp",
        "key": "lost",
        "folder": str(lost),
        "size_bytes": 3,
        "installed_at": None,
        "users": [],
        "manifest": None,
    }
    assert rows[spec["key"]]["manifest"]["commit"] == samples.COMMIT
    assert rows[spec["key"]]["installed_at"].endswith("Z")
    assert rows[spec["key"]]["size_bytes"] > rows[spec["key"]]["manifest"]["size_bytes"]


@pytest.mark.parametrize("link", ["current", "previous", "pinned-summer"])
def test_what_a_link_names_stays(paths: dict[str, str], link: str) -> None:
    used, unused = folder(paths, "used"), folder(paths, "unused")
    generation(paths, used, link)
    generation(paths, unused, "", 2)
    assert prune.prune(plan(paths)) == [str(unused)]
    assert used.is_dir()
    assert not unused.exists()


def test_what_an_unfinished_activation_names_stays(paths: dict[str, str]) -> None:
    used = folder(paths, "used")
    instance = generation(paths, used, "")
    (instance / "activating.json").write_text(json.dumps({"from": None, "to": "g1"}))
    assert prune.prune(plan(paths)) == []


def test_what_the_plan_names_stays(paths: dict[str, str]) -> None:
    for key in ("planned", "built", "old"):
        folder(paths, key)
    removed = prune.prune(plan(paths, "planned", builds=("built",)))
    assert [Path(path).name for path in removed] == ["old"]


def test_what_a_process_runs_from_stays(paths: dict[str, str]) -> None:
    used = folder(paths, "used")
    program = used / "bin" / "llama-server"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    with subprocess.Popen([program, "60"]) as process:
        (row,) = releases.releases(paths)
        assert row["users"] == [f"pid {process.pid}"]
        assert prune.prune(plan(paths)) == []
        process.kill()
    assert prune.prune(plan(paths)) == [str(used)]


def test_a_generation_that_nobody_can_read_stops_everything(paths: dict[str, str]) -> None:
    used = folder(paths, "used")
    instance = generation(paths, used, "current")
    (instance / "generations" / "g1" / "plan.json").write_text("{")
    with pytest.raises(HostError, match=r"plan\.json is unreadable"):
        prune.prune(plan(paths))
    assert used.is_dir()


def test_a_link_to_nothing_uses_nothing(paths: dict[str, str]) -> None:
    instance = Path(paths["state"]) / "instances" / "chat"
    instance.mkdir(parents=True)
    (instance / "previous").symlink_to("generations/gone")
    old = folder(paths, "old")
    assert prune.prune(plan(paths)) == [str(old)]


def test_leftovers_of_jobs_go_with_what_nobody_will_ask_for(paths: dict[str, str]) -> None:
    state, engines = Path(paths["state"]), Path(paths["engines"]) / "llama.cpp"
    kept = [state / "archives" / "planned.tar.zst", state / "build" / "llama.cpp" / "planned" / "o"]
    kept += [state / "build" / "llama.cpp" / "source" / "file"]
    gone = [engines / ".staging-planned" / "bin", engines / ".removed-old" / "bin"]
    gone += [state / "archives" / "planned.tar.zst.partial", state / "archives" / "old.tar.zst"]
    gone += [state / "build" / "llama.cpp" / "old" / "o"]
    for path in [*kept, *gone]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (0, 0))
    # Another deploy is sending it now.
    kept.append(state / "archives" / "planned.tar.zst.0a1b2c3d")
    kept[-1].touch()
    removed = prune.prune(plan(paths, "planned"))
    assert len(removed) == len(gone)
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in gone)
    assert prune.prune(plan(paths, "planned")) == []


def test_nothing_is_pruned_while_a_release_is_made(paths: dict[str, str], tmp_path: Path) -> None:
    old = folder(paths, "old")
    spec = samples.release(tmp_path)
    with (
        locks.changing_releases(spec),
        locks.changing_releases(spec),
        pytest.raises(HostError, match="a release is being built or installed"),
    ):
        prune.prune(plan(paths))
    assert old.is_dir()
    assert prune.prune(plan(paths)) == [str(old)]


def test_a_host_without_anything_has_nothing_to_prune(paths: dict[str, str]) -> None:
    assert releases.releases(paths) == []
    assert prune.prune(plan(paths)) == []


def test_a_killed_removal_leaves_no_half_release(
    paths: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = folder(paths, "old")

    def killed(_: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(prune.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            prune.prune(plan(paths))
    assert not old.exists()
    assert releases.releases(paths) == []
    assert prune.prune(plan(paths)) == [str(old.with_name(".removed-old"))]
    assert list(old.parent.iterdir()) == []
