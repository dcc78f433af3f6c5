"""Names from a hostile hub, where they enter: at lock, in corral.lock, in the plan, on the host."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, NoReturn

import pytest

from corral.catalog.entries import load_catalog
from corral.errors import CorralError
from corral.lock import resolve
from corral.lock.lock_file import Lock, LockedModel, read_lock, write_lock
from corral.sources.hub import HubRevision
from tests.samples import CHAT, EXAMPLES, host, planner
from tests.unit.helper_modules import helper_module

fetching = helper_module("weights.fetch")
HostError = helper_module("system.commands").HostError

OPTIONS = "x\n  dir=/etc/cron.d\n  out=owned"
SHA256 = "a" * 64
OWN = [".staging/x", "x.gguf.receipt.json"]
BAD = [*OWN, OPTIONS, "../../srv/owned", "/etc/owned", "a/./b", "a\u202eb", "a\x1b[2J", "x" * 201]


def hub_says(path: object, size: object = 1, sha256: object = SHA256) -> HubRevision:
    lfs = {"size": size, "sha256": sha256, "pointerSize": 1}
    siblings = [{"rfilename": path, "size": size, "lfs": lfs}]
    return HubRevision.model_validate({"sha": "b" * 40, "siblings": siblings})


def lock_of(said: HubRevision) -> Any:
    model = load_catalog(EXAMPLES / "catalog").models["tiny-glm-moe"]
    quant = sorted(model.quants)[0]
    everything = model.quants[quant].model_copy(update={"files": "*"})
    model = model.model_copy(update={"quants": {quant: everything}})
    return resolve.weights_of("tiny-glm-moe", model, quant, said)


@pytest.mark.parametrize("path", BAD)
def test_a_name_of_a_hub_that_leads_elsewhere_is_not_locked(path: str) -> None:
    with pytest.raises(CorralError, match="catalog/models/tiny-glm-moe.toml") as caught:
        lock_of(hub_says(path))
    assert "\x1b" not in str(caught.value)
    assert "\u202e" not in str(caught.value)


@pytest.mark.parametrize("size", [-1, 0, 2**60, "many", None, 1.5])
def test_a_size_of_a_hub_that_cannot_be_is_not_locked(size: object) -> None:
    with pytest.raises(CorralError, match="size_bytes"):
        lock_of(hub_says("x.gguf", size=size))


@pytest.mark.parametrize("sha256", ["", "a" * 63, "A" * 64, "../x", None, 7])
def test_a_digest_of_a_hub_that_is_none_is_not_locked(sha256: object) -> None:
    with pytest.raises(CorralError, match="sha256"):
        lock_of(hub_says("x.gguf", sha256=sha256))


def test_an_ordinary_name_is_locked_as_it_is() -> None:
    (locked,) = lock_of(hub_says("UD 4/ä#b?c%20d.gguf"))
    assert locked.path == "UD 4/ä#b?c%20d.gguf"


def committed() -> tuple[Lock, str, LockedModel]:
    lock = planner().lock
    name = next(iter(lock.models))
    return lock, name, lock.models[name]


def with_path(path: str) -> Lock:
    """The lock of the samples, with another path for each file of one model; unchecked."""
    lock, name, model = committed()
    quants = {
        quant: tuple(file.model_copy(update={"path": path}) for file in files)
        for quant, files in model.quants.items()
    }
    changed = model.model_copy(update={"quants": quants})
    return lock.model_copy(update={"models": {**lock.models, name: changed}})


@pytest.mark.parametrize("path", BAD)
def test_a_lock_file_with_such_a_name_is_not_read(tmp_path: Path, path: str) -> None:
    write_lock(tmp_path / "corral.lock", with_path(path))
    with pytest.raises(CorralError, match="corral.lock"):
        read_lock(tmp_path / "corral.lock")


def two(first: dict[str, Any], second: dict[str, Any]) -> None:
    _, _, model = committed()
    other = {"size_bytes": 1, "sha256": SHA256}
    quants = {"A": [{**other, **first}], "B": [{**other, **second}]}
    LockedModel.model_validate({**model.model_dump(), "quants": quants})


def test_two_quants_may_share_a_file() -> None:
    two({"path": "a/x"}, {"path": "a/x"})
    two({"path": "a/x"}, {"path": "a/xy"})


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"path": "a"}, {"path": "a/x"}),
        ({"path": "a/b/c/x"}, {"path": "a/b"}),
        ({"path": "a"}, {"path": "a", "size_bytes": 2}),
        ({"path": "a"}, {"path": "a", "sha256": "b" * 64}),
    ],
)
def test_files_of_a_model_that_cannot_stand_beside_each_other_are_refused(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="is a file|has two"):
        two(first, second)


def test_a_file_that_is_listed_twice_is_not_locked() -> None:
    said = hub_says("x.gguf")
    twice = said.model_copy(update={"siblings": said.siblings * 2})
    with pytest.raises(ValueError, match="twice"):
        LockedModel.model_validate({**committed()[2].model_dump(), "quants": {"A": lock_of(twice)}})


@pytest.mark.parametrize("repo", [".staging/x", "../x", "a/..", "x", "a/b/c", "a /b", "-/\n"])
def test_a_repository_is_two_plain_parts(repo: str) -> None:
    _, _, model = committed()
    with pytest.raises(ValueError, match="organisation/name"):
        LockedModel.model_validate({**model.model_dump(), "repo": repo})


def test_an_odd_name_is_quoted_in_the_address_and_plain_in_the_path() -> None:
    found = planner().model_copy(update={"lock": with_path("UD 4/ä#b?c%20d.gguf")})
    (shard,) = found.plan_host(host(CHAT)).shards
    assert shard.url.endswith("/UD%204/%C3%A4%23b%3Fc%2520d.gguf")
    assert shard.path.endswith("/UD 4/ä#b?c%20d.gguf")


def shard(state: Path, **changed: str) -> dict[str, Any]:
    path = f"{state}/models/a/b/{'c' * 40}/x.gguf"
    own = {"url": "http://127.0.0.1:1/x", "path": path, "sha256": SHA256, "size_bytes": 1}
    return {**own, "revision": "c" * 40, **changed}


@pytest.fixture
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*words: object, **_: object) -> NoReturn:
        raise AssertionError(f"{words} was run")

    monkeypatch.setattr(subprocess, "run", started)
    monkeypatch.setattr(subprocess, "Popen", started)


def refused(state: Path, **changed: str) -> None:
    before = sorted(state.rglob("*"))
    with pytest.raises(HostError, match="Nothing was fetched") as caught:
        fetching.fetch({"shards": [shard(state, **changed)], "paths": {"state": str(state)}})
    assert "\x1b" not in str(caught.value)
    assert sorted(state.rglob("*")) == before


@pytest.mark.usefixtures("no_download")
@pytest.mark.parametrize("name", BAD)
def test_a_host_writes_no_weights_outside_its_models(tmp_path: Path, name: str) -> None:
    below = "models" if name in OWN else "models/a/b"
    outside = name if name.startswith("/") else f"{tmp_path}/{below}/{name}"
    refused(tmp_path, path=outside)


@pytest.mark.usefixtures("no_download")
def test_a_link_does_not_lead_weights_out_of_the_models(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "a").symlink_to("/srv")
    refused(tmp_path)


@pytest.mark.usefixtures("no_download")
@pytest.mark.parametrize(
    "url", [f"http://h/{OPTIONS}", "file:///etc/shadow", "http://h/a b", "--out=x", "http://h/\x1b"]
)
def test_an_address_cannot_be_an_option(tmp_path: Path, url: str) -> None:
    refused(tmp_path, url=url)


@pytest.mark.usefixtures("no_download")
def test_a_digest_names_the_staged_file_and_nothing_else(tmp_path: Path) -> None:
    refused(tmp_path, sha256="../../../etc/cron.d/owned")


def test_models_may_be_a_link_to_another_disk(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "models").symlink_to(tmp_path / "disk")
    fetching.refuse_elsewhere(shard(tmp_path), {"state": str(tmp_path)})
