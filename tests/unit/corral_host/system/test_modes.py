"""A root whose umask hides everything makes the same host, and modes are corrected later."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corral.paths import HostPaths
from corral.plan.host import HostPlan
from corral.remote.helper_archive import archive
from tests.samples import CHAT, ROOT, host, planner
from tests.unit.helper_modules import helper_module
from tests.unit.small_disks import fill_up

modes, tools, folders = (
    helper_module(name) for name in ("system.modes", "system.commands", "system.folders")
)
release, state = helper_module("release.manifest"), helper_module("observe.state")


@pytest.fixture(autouse=True)
def hiding() -> Iterator[None]:
    """The umask of a careful administrator."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def mode(path: Path | str) -> int:
    return stat.S_IMODE(Path(path).stat().st_mode)


@pytest.fixture
def plan(tmp_path: Path) -> HostPlan:
    """A plan whose files all exist and are readable only by root."""
    paths = HostPaths(
        state=str(tmp_path / "var" / "corral"), units=str(tmp_path / "units"),
        engines=str(tmp_path / "opt" / "corral" / "engines"),
    )  # fmt: skip
    base = planner(paths=paths, chat_template_file="own.jinja")
    known = base.catalog.model_copy(update={"chat_templates": {"own.jinja": "text"}})
    made = base.model_copy(update={"catalog": known}).plan_host(host(CHAT))
    for path in read_by_servers(made):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for folder in (tmp_path, tmp_path / "opt", tmp_path / "var", tmp_path / "units"):
        folder.chmod(0o711)
    return made


def read_by_servers(plan: HostPlan) -> list[Path]:
    (release,), (instance,) = plan.releases, plan.instances
    assert instance.chat_template_path
    server = Path(release.folder) / "bin" / "llama-server"
    library = Path(release.folder) / "lib" / "libggml.so"
    others = [instance.chat_template_path, instance.unit_path, *(s.path for s in plan.shards)]
    return [server, library, *map(Path, others)]


def document(plan: HostPlan) -> Any:
    return json.loads(plan.to_helper())


def test_what_a_umask_hid_is_seen_and_healed(plan: HostPlan, tmp_path: Path) -> None:
    (tmp_path / "opt").chmod(0o700)
    found = modes.closed(document(plan))
    for path in read_by_servers(plan):
        assert str(path) in found
    for folder in (plan.paths.state, plan.paths.engines, Path(plan.paths.engines).parent):
        assert str(folder) in found
    assert modes.heal(document(plan)) == found
    server, library, *files = read_by_servers(plan)
    assert {mode(server), mode(library)} == {0o755}
    assert {mode(path) for path in files} == {0o644}
    assert {mode(path.parent) for path in (server, library, *files)} == {0o755, 0o711}
    assert modes.closed(document(plan)) == []
    # Not Corral's.
    assert mode(tmp_path / "opt") == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_another_user_reads_it_afterwards(plan: HostPlan, tmp_path: Path) -> None:
    for folder in tmp_path.parents:
        if folder.owner() == "root" and folder != Path("/"):
            folder.chmod(mode(folder) | 0o011)
    paths = read_by_servers(plan)[:-1]
    command = ["head", "-c1", *(str(path) for path in paths if path.suffix != ".service")]
    nobody: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": ()}
    assert subprocess.run(command, capture_output=True, check=False, **nobody).returncode == 1
    modes.heal(document(plan))
    assert subprocess.run(command, capture_output=True, check=False, **nobody).returncode == 0


def test_haproxy_gets_as_far_as_its_own_folder(tmp_path: Path) -> None:
    paths = HostPaths(gateway=str(tmp_path / "corral" / "gateway"), units=str(tmp_path))
    hosts = [host(CHAT, gateway={"aliases": {"small": {"port": 8000}}})]
    made = planner(paths=paths).plan_host(hosts[0])
    gateway = planner(paths=paths).gateways(hosts)["lab-1"]
    made = made.model_copy(update={"gateway": gateway})
    Path(paths.gateway).mkdir(parents=True)
    (tmp_path / "corral").chmod(0o700)
    assert modes.heal(document(made)) == [str(tmp_path / "corral")]
    assert (mode(tmp_path / "corral"), mode(paths.gateway)) == (0o755, 0o700)


def test_what_was_opened_further_stays_so(plan: HostPlan) -> None:
    Path(plan.paths.state).chmod(0o2770)
    modes.heal(document(plan))
    assert mode(plan.paths.state) == 0o2775


def test_what_is_not_there_is_not_closed(tmp_path: Path) -> None:
    paths = HostPaths(state=str(tmp_path / "s"), engines=str(tmp_path / "e"), units=str(tmp_path))
    assert modes.closed(document(planner(paths=paths).plan_host(host(CHAT)))) == []


def test_a_file_has_the_mode_that_is_asked_for(tmp_path: Path) -> None:
    tools.write_atomic(tmp_path / "unit", "text")
    tools.write_atomic(tmp_path / "key", "text", mode=0o600)
    assert (mode(tmp_path / "unit"), mode(tmp_path / "key")) == (0o644, 0o600)


def test_a_full_disk_leaves_the_old_file_and_no_half_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools.write_atomic(tmp_path / "unit", "as before")
    fill_up(monkeypatch)
    with pytest.raises(OSError, match="No space"):
        tools.write_atomic(tmp_path / "unit", "new")
    assert (tmp_path / "unit").read_text() == "as before"
    assert list(tmp_path.iterdir()) == [tmp_path / "unit"]


def test_a_release_is_open_before_another_user_tries_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def tried(folder: Path, _: str) -> None:
        seen.extend(mode(one) for one in (folder, folder / "bin", folder / "bin" / "s"))
        seen.extend(mode(one) for one in (folder / "x.txt", *list(folder.parents)[:2]))
        raise tools.HostError("enough")

    monkeypatch.setattr(release, "prove_self_contained", tried)
    final = tmp_path / "engines" / "e" / "k"
    with folders.staging_for(final) as staging:
        (staging / "bin").mkdir()
        (staging / "bin" / "s").touch()
        (staging / "x.txt").touch()
        with pytest.raises(tools.HostError, match="enough"):
            release.prove({"artifact": {"kind": "cmake-build"}}, staging)
    assert seen == [0o755, 0o755, 0o755, 0o644, 0o755, 0o755]


def test_the_helper_hides_nothing_that_it_makes(tmp_path: Path) -> None:
    helper = tmp_path / "corral_host.pyz"
    helper.write_bytes(archive(ROOT / "files" / "corral_host"))
    code = "import sys; sys.path.insert(0, sys.argv[1]); from corral_host.__main__ import main; "
    code += "main(['nothing']); open(sys.argv[2], 'w')"
    subprocess.run(
        [sys.executable, "-I", "-c", code, helper, tmp_path / "made"],
        capture_output=True,
        check=False,
    )
    assert mode(tmp_path / "made") == 0o644
