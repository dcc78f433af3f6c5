"""What the helper reports as present on a host: whole releases, proved shards."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from corral.host.state import HostState
from corral.paths import HostPaths
from corral.plan.host import HostPlan
from tests.samples import CHAT, host, planner
from tests.unit.helper_modules import helper_module
from tests.unit.remote.test_helper import run

pytestmark = pytest.mark.slow


@pytest.fixture
def planned(tmp_path: Path) -> HostPlan:
    """A plan below ``tmp_path``, without instances: what systemd says does not matter here."""
    paths = HostPaths(engines=str(tmp_path / "engines"), state=str(tmp_path / "state"))
    return planner(paths=paths).plan_host(host(CHAT)).model_copy(update={"instances": ()})


def state_of(planned: HostPlan) -> HostState:
    done = run("state", planned.to_helper())
    assert done.returncode == 0, done.stderr
    return HostState.model_validate(json.loads(done.stdout))


def install(planned: HostPlan, **changes: Any) -> Path:
    """Write a release like a build, with ``changes`` to its manifest; returns its program."""
    (release,) = planned.releases
    program = Path(release.folder) / "bin" / "llama-server"
    program.parent.mkdir(parents=True)
    program.write_bytes(b"ELF")
    manifest = {"key": release.key, "files": {"bin/llama-server": {"size_bytes": 3}}, **changes}
    (Path(release.folder) / "manifest.json").write_text(json.dumps(manifest))
    return program


def has_release(planned: HostPlan) -> bool:
    return state_of(planned).releases[planned.releases[0].key]


def test_a_release_with_its_manifest_and_files_is_whole(planned: HostPlan) -> None:
    program = install(planned)
    assert has_release(planned)
    program.write_bytes(b"EL")
    assert not has_release(planned)
    program.unlink()
    assert not has_release(planned)


def test_a_release_whose_manifest_names_another_is_not_whole(planned: HostPlan) -> None:
    install(planned, key="another")
    assert not has_release(planned)


def test_a_release_without_a_manifest_is_not_whole(planned: HostPlan) -> None:
    (install(planned).parent.parent / "manifest.json").unlink()
    assert not has_release(planned)


def put(planned: HostPlan, **changes: Any) -> Path:
    """Write a shard and its receipt, with ``changes`` to the receipt; returns the shard's path."""
    (shard,) = planned.shards
    path = Path(shard.path)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"GGUF")
    found = path.stat()
    receipt = {"sha256": shard.sha256, "size_bytes": 4, "mtime_ns": found.st_mtime_ns, **changes}
    Path(f"{path}.receipt.json").write_text(json.dumps(receipt))
    return path


def proved(planned: HostPlan) -> bool:
    return state_of(planned).shards[planned.shards[0].path].proved


def test_a_shard_with_a_receipt_for_these_bytes_is_proved(planned: HostPlan) -> None:
    put(planned)
    assert proved(planned)


@pytest.mark.parametrize("change", [{"sha256": "0" * 64}, {"size_bytes": 5}, {"mtime_ns": 1}])
def test_a_receipt_for_something_else_proves_nothing(
    planned: HostPlan, change: dict[str, Any]
) -> None:
    put(planned, **change)
    assert not proved(planned)


def test_a_shard_that_was_touched_since_is_not_proved(planned: HostPlan) -> None:
    os.utime(put(planned), (1, 1))
    assert not proved(planned)


def test_a_receipt_without_its_shard_proves_nothing(planned: HostPlan) -> None:
    put(planned).unlink()
    assert not proved(planned)


def test_what_has_arrived_of_a_shard_is_told(planned: HostPlan) -> None:
    staged = Path(planned.paths.models) / ".staging" / planned.shards[0].sha256
    staged.parent.mkdir(parents=True)
    with staged.open("wb") as file:
        file.write(b"x" * 8192)
        file.flush()
        os.fsync(file.fileno())
    assert state_of(planned).shards[planned.shards[0].path].staged_bytes > 0


def test_the_size_of_a_sites_image_that_is_to_be_copied_is_told(tmp_path: Path) -> None:
    state = helper_module("observe.state")
    image = tmp_path / "site.sif"
    image.write_bytes(b"sif" * 9)
    one = {"key": "k", "folder": str(tmp_path / "none"), "engine": "site"}
    kinds = [{"kind": "own-image", "source": str(image)}, {"kind": "made-image"},
             {"kind": "own-image", "source": "https://example.com/site.sif"}]  # fmt: skip
    releases = [{**one, "key": str(n), "artifact": kind} for n, kind in enumerate(kinds)]
    assert state.site_images(releases) == {"0": 27}
