"""The models root: a link, a disk of its own, a disk that is not mounted."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from corral.host.state import HostState
from corral.paths import HostPaths
from corral.plan.host import HostPlan
from tests.samples import CHAT, host, planner
from tests.unit.helper_modules import helper_module
from tests.unit.small_disks import small_disk

fetching, roots, states = (
    helper_module(name) for name in ("weights.fetch", "weights.models_root", "observe.state")
)
receipts = helper_module("weights.receipts")
HostError = helper_module("system.commands").HostError

BYTES = b"weights" * 100
GOOD = {"problem": "", "next_step": "", "marked": True, "unwanted_bytes": 0}
UNMARKED = {**GOOD, "marked": False}
SHA256 = hashlib.sha256(BYTES).hexdigest()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Requests to a hub that has everything."""
    asked: list[str] = []

    def download(shard: dict[str, Any], staged: Path) -> None:
        asked.append(shard["url"])
        staged.write_bytes(BYTES)

    monkeypatch.setattr(fetching, "ask_hub", lambda shard: asked.append(shard["url"]))
    monkeypatch.setattr(fetching, "download", download)
    monkeypatch.setattr(roots, "FSTAB", tmp_path / "fstab")
    return asked


def shard(state: Path, name: str = "x.gguf", repo: str = "a/b") -> dict[str, Any]:
    return {
        "url": f"http://hub.example.com/{name}", "revision": "c" * 40, "sha256": SHA256,
        "path": f"{state}/models/{repo}/{'c' * 40}/{name}", "size_bytes": len(BYTES),
    }  # fmt: skip


def fetch(state: Path, *shards: dict[str, Any]) -> None:
    fetching.fetch({"shards": list(shards), "paths": {"state": str(state)}})


def root_of(state: Path, *missing: dict[str, Any]) -> dict[str, Any]:
    paths = {"state": str(state)}
    found: dict[str, Any] = roots.root_state(paths, roots.root_fault(paths), missing)
    return found


@contextmanager
def bound(folder: Path, place: Path) -> Iterator[Path]:
    """A bind mount of the same file system."""
    folder.mkdir(parents=True, exist_ok=True)
    place.mkdir(parents=True, exist_ok=True)
    command = ["mount", "--bind", str(folder), str(place)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("only root may mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)
        assert not place.is_mount()


def test_a_link_to_another_file_system_holds_the_weights(state: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        (state / "models").symlink_to(disk)
        fetch(state, shard(state))
        (found,) = disk.rglob("*.gguf")
        assert found.read_bytes() == BYTES
        assert receipts.shard_is_proved(shard(state))
        assert root_of(state, shard(state)) == GOOD


def test_a_mount_of_its_own_holds_the_weights(state: Path) -> None:
    with small_disk(state / "models") as disk:
        fetch(state, shard(state))
        assert len([*disk.rglob("*.gguf")]) == 1


def test_a_disk_that_is_not_mounted_is_not_filled_again(state: Path, fetched: list[str]) -> None:
    with small_disk(state / "models"):
        fetch(state, shard(state))
    fetched.clear()
    with pytest.raises(HostError, match="not where the weights were put") as caught:
        fetch(state, shard(state), shard(state, "y.gguf"))
    assert f"rm {state}/models-root" in str(caught.value)
    assert fetched == [] == [*(state / "models").iterdir()]
    assert root_of(state)["problem"].startswith(f"{state}/models is not where")
    assert not root_of(state)["marked"]
    (state / "models-root").unlink()
    fetch(state, shard(state))
    assert len(fetched) == 2


def test_another_disk_in_its_place_is_not_filled(state: Path, fetched: list[str]) -> None:
    with small_disk(state / "models"):
        fetch(state, shard(state))
    (state / "models").rmdir()
    fetched.clear()
    with small_disk(state / "models"), pytest.raises(HostError, match="or was replaced"):
        fetch(state, shard(state))
    assert fetched == []


def test_a_disk_that_goes_while_weights_arrive_is_noticed(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fetched: list[str]
) -> None:
    (tmp_path / "disk").mkdir()
    (state / "models").symlink_to(tmp_path / "disk")
    place = fetching.fetch_shard

    def gone_afterwards(shard: dict[str, Any], staged: Path) -> None:
        place(shard, staged)
        (tmp_path / "disk").rename(tmp_path / "gone")
        (tmp_path / "disk").mkdir()

    monkeypatch.setattr(fetching, "fetch_shard", gone_afterwards)
    with pytest.raises(HostError, match="not where the weights were put"):
        fetch(state, shard(state), {**shard(state, "y.gguf"), "sha256": "d" * 64})
    assert fetched == [shard(state)["url"]] * 2
    assert [*(tmp_path / "disk").iterdir()] == []


def test_a_link_to_nothing_is_not_made_good(state: Path, tmp_path: Path) -> None:
    (state / "models").symlink_to(tmp_path / "none")
    with pytest.raises(HostError, match="link to what is not there"):
        fetch(state, shard(state))
    assert f"mount {tmp_path}/none" in root_of(state)["next_step"]
    assert not (tmp_path / "none").exists()


def test_a_file_is_no_models_root(state: Path) -> None:
    (state / "models").write_text("x")
    with pytest.raises(HostError, match="is not a folder"):
        fetch(state, shard(state))


def test_a_disk_that_answers_with_an_error_is_told(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(_: Path) -> str:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(roots, "text", stale)
    assert "cannot be read: Stale file handle" in root_of(state)["problem"]


@pytest.mark.parametrize("way", ["mounted", "linked", "linked below"])
def test_what_fstab_says_is_missed_on_a_host_without_a_marker(
    state: Path, tmp_path: Path, fetched: list[str], way: str
) -> None:
    place = state / "models" if way == "mounted" else tmp_path / "big disk"
    place.mkdir()
    if way != "mounted":
        (state / "models").symlink_to(place / ("models" if way == "linked below" else ""))
    written = str(place).replace(" ", "\\040")
    text = f"# /dev/sda {state}\n/dev/sdb none swap sw 0 0\n\n/dev/sdc {written} ext4 nofail 0 2\n"
    roots.FSTAB.write_text(text)
    with pytest.raises(HostError, match="nothing is mounted at") as caught:
        fetch(state, shard(state))
    assert f"mount {place}, or take its line out of" in str(caught.value)
    assert fetched == [] == [*place.iterdir()]
    # A bind mount of the same file system counts as a mount, too.
    with bound(tmp_path / "other", place):
        (place / "models").mkdir()
        fetch(state, shard(state))
    assert len(fetched) == 2


def test_a_marked_root_needs_no_line_in_fstab_to_be_right(state: Path) -> None:
    fetch(state, shard(state))
    roots.FSTAB.write_text(f"/dev/sdc {state}/models ext4 nofail 0 2\n")
    assert root_of(state) == GOOD


@pytest.mark.parametrize("kind", ["another", "the same"])
def test_a_file_system_below_is_refused_before_a_byte(
    state: Path, tmp_path: Path, fetched: list[str], kind: str
) -> None:
    (state / "models" / "b").mkdir(parents=True)
    below = state / "models" / "b" / "c"
    first, second = shard(state), shard(state, repo="b/c")
    with small_disk(below) if kind == "another" else bound(tmp_path / "other", below):
        with pytest.raises(HostError, match="on another file system") as caught:
            fetch(state, first, {**second, "sha256": "d" * 64})
        assert f"mount one at {state}/models for all weights" in str(caught.value)
        assert fetched == []
        assert "on another file system" in root_of(state, first, second)["problem"]
        assert root_of(state, first)["problem"] == ""
        fetch(state, first)
    assert len(fetched) == 2


def test_a_staging_folder_on_another_file_system_is_refused(
    state: Path, fetched: list[str]
) -> None:
    (state / "models").mkdir()
    with small_disk(state / "models" / ".staging"), pytest.raises(HostError, match="another file"):
        fetch(state, shard(state))
    assert fetched == []


def test_a_host_of_an_earlier_version_is_marked_once(state: Path, fetched: list[str]) -> None:
    fetch(state, shard(state))
    for path in (state / "models-root", state / "models" / roots.MARKER):
        path.unlink()
    fetched.clear()
    assert root_of(state) == UNMARKED
    fetch(state)
    assert root_of(state)["marked"]
    marker = (state / "models" / roots.MARKER).read_text()
    fetch(state)
    assert (state / "models" / roots.MARKER).read_text() == marker
    assert (state / "models-root").read_text() == marker
    assert fetched == []


def test_a_disk_that_comes_to_another_host_keeps_its_marker(state: Path, tmp_path: Path) -> None:
    fetch(state, shard(state))
    other = tmp_path / "other"
    other.mkdir()
    (other / "models").symlink_to(state / "models")
    fetch(other)
    assert (other / "models-root").read_text() == (state / "models-root").read_text()


def test_a_kill_between_marker_and_record_is_made_good(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = roots.write_atomic

    def killed(path: Path, text: str) -> None:
        if path == state / "models-root":
            raise KeyboardInterrupt
        write(path, text)

    with monkeypatch.context() as broken:
        broken.setattr(roots, "write_atomic", killed)
        with pytest.raises(KeyboardInterrupt):
            fetch(state)
    assert root_of(state) == UNMARKED
    fetch(state)
    assert root_of(state)["marked"]


def test_a_read_only_disk_with_all_weights_is_nothing_to_mark(state: Path) -> None:
    with small_disk(state / "models") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert root_of(state)["marked"]
        fetch(state)


@pytest.fixture
def planned(state: Path, tmp_path: Path) -> HostPlan:
    """A plan without instances, as systemd does not matter here."""
    paths = HostPaths(engines=str(tmp_path / "engines"), state=str(state))
    return planner(paths=paths).plan_host(host(CHAT)).model_copy(update={"instances": ()})


def state_of(planned: HostPlan) -> HostState:
    return HostState.model_validate(states.state(json.loads(planned.to_helper())))


def test_space_is_measured_where_the_weights_will_be(planned: HostPlan, state: Path) -> None:
    with small_disk(state / "models") as disk:
        found = state_of(planned).filesystems
        assert found["models"].device == disk.stat().st_dev
        assert found["models"].free_bytes <= 64 * 1024
        assert found["state"].device == state.stat().st_dev
    assert state_of(planned).filesystems["models"].device == state.stat().st_dev


def test_nothing_is_asked_of_a_disk_that_is_gone(
    planned: HostPlan, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: Any) -> None:
        raise OSError(116, "Stale file handle")

    (one,) = planned.shards
    (state / "models-root").write_text("another\n")
    monkeypatch.setattr(states, "shard_state", asked)
    found = state_of(planned)
    assert not found.shards[one.path].proved
    assert "is not where the weights were put" in found.models_root.problem


def test_the_state_tells_of_a_file_system_below(planned: HostPlan) -> None:
    (one,) = planned.shards
    below = Path(one.path).parents[1]
    below.parent.mkdir(parents=True)
    with small_disk(below):
        assert "on another file system" in state_of(planned).models_root.problem


def test_the_state_tells_what_is_left_of_downloads_that_nobody_plans(
    planned: HostPlan, state: Path
) -> None:
    (one,) = planned.shards
    staging = state / "models" / ".staging"
    staging.mkdir(parents=True)
    for digest in (one.sha256, "f" * 64):
        (staging / digest).write_bytes(b"x" * 8192)
    assert state_of(planned).models_root.unwanted_bytes == 8192
    fetching.fetch({"shards": [], "paths": json.loads(planned.to_helper())["paths"]})
    assert state_of(planned).models_root.unwanted_bytes == 0


def test_a_download_that_ends_meanwhile_is_no_fault(
    planned: HostPlan, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = state / "models" / ".staging" / ("f" * 64)
    monkeypatch.setattr(roots, "unwanted", lambda *_: [gone])
    assert state_of(planned).models_root.unwanted_bytes == 0


FOLDER = "models of the site"


@pytest.fixture
def site(state: Path) -> dict[str, str]:
    """Paths of a host with a folder of its own for weights."""
    return {"state": str(state), "models_folder": str(state.parent / FOLDER)}


@pytest.fixture
def in_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders of tests are in /tmp and closed to others, unlike those of hosts."""
    monkeypatch.setattr(roots, "out_of_sight", lambda _: None)


def of_site(paths: dict[str, str]) -> dict[str, Any]:
    one = shard(Path(paths["state"]))
    return {**one, "path": f"{paths['models_folder']}/a/b/{'c' * 40}/x.gguf"}


@pytest.mark.usefixtures("in_sight")
def test_weights_arrive_in_the_folder_that_the_inventory_names(
    site: dict[str, str], fetched: list[str]
) -> None:
    one = of_site(site)
    fetching.fetch({"shards": [one], "paths": site})
    assert Path(one["path"]).read_bytes() == BYTES
    assert len(fetched) == 2
    assert roots.root_state(site, roots.root_fault(site), []) == GOOD
    assert not (Path(site["state"]) / "models").exists()


@pytest.mark.usefixtures("in_sight")
def test_a_folder_of_the_site_that_is_gone_is_not_filled_again(
    site: dict[str, str], fetched: list[str]
) -> None:
    one = of_site(site)
    fetching.fetch({"shards": [one], "paths": site})
    fetched.clear()
    root = Path(site["models_folder"])
    root.rename(root.with_name("unmounted"))
    root.mkdir()
    with pytest.raises(HostError, match="is not where the weights were put") as refused:
        fetching.fetch({"shards": [one], "paths": site})
    assert not fetched
    assert list(root.iterdir()) == []
    # The command as printed lets the folder be filled again.
    command = refused.value.next_step.rpartition(": ")[2]
    subprocess.run(["sh", "-c", command], check=True)
    fetching.fetch({"shards": [one], "paths": site})


@pytest.mark.usefixtures("in_sight")
def test_each_folder_is_known_by_its_own_marker(site: dict[str, str], state: Path) -> None:
    """A host that changed its folder still knows the one that a revert needs."""
    fetch(state, shard(state))
    fetching.fetch({"shards": [of_site(site)], "paths": site})
    assert root_of(state) == GOOD
    assert roots.root_fault(site) is None


def test_a_shard_outside_of_the_folder_is_refused(site: dict[str, str], state: Path) -> None:
    with pytest.raises(HostError, match="is not below it"):
        fetching.fetch({"shards": [shard(state)], "paths": site})


def test_a_folder_that_servers_cannot_see_is_a_finding(
    site: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "servers cannot see" in roots.root_state(site, None, [])["problem"]
    monkeypatch.setattr(roots, "HIDDEN", ())
    closed = Path(site["state"])
    paths = {**site, "models_folder": str(closed / "models")}
    for above in closed.parents:
        above.chmod(above.stat().st_mode | 0o001)
    closed.chmod(0o700)
    found = roots.root_state(paths, None, [])
    assert (found["problem"], found["next_step"]) == (
        f"{closed} is closed to the users of servers", f"chmod o+x {closed}",
    )  # fmt: skip
    closed.chmod(0o711)
    assert roots.root_state(paths, None, [])["problem"] == ""
