"""`corral lock` of safetensors repositories: locked whole, and refused with the reason."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from corral.catalog.entries import Catalog, Model
from corral.errors import CorralError
from corral.lock.lock_file import Lock, LockedFile, stale, wanted_by
from corral.lock.resolve import resolve
from lab import hub
from tests.samples import CHAT, catalog, host

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("every_commit_is_there")]

QUANTS = {
    "Q8_0": {"files": "F32/*.safetensors", "config": ["F32/*.json", "F32/chat_template.jinja"]},
    "BF16": {"files": "BF16/*.safetensors", "config": ["BF16/*.json", "BF16/*.jinja"]},
}
SMALL = [
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
]
INDEX = "BF16/model.safetensors.index.json"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    hub.prepare(tmp_path)
    return tmp_path / "repos" / hub.SAFETENSORS_REPOSITORY / "main"


@pytest.fixture
def url(root: Path) -> Iterator[str]:
    with hub.running(root.parents[3], log=io.StringIO()) as address:
        yield address


def with_quants(quants: dict[str, Any]) -> Catalog:
    known = catalog()
    data = {**known.models["small"].model_dump(), "quants": quants}
    model = Model.model_validate({**data, "repo": hub.SAFETENSORS_REPOSITORY})
    return known.model_copy(update={"models": {"small": model}})


def locked(url: str, quants: dict[str, Any] = QUANTS) -> dict[str, tuple[LockedFile, ...]]:
    known = with_quants(quants)
    users = [host(CHAT, hub_url=url)]
    lock = resolve(Lock(), known, users)
    assert stale(lock, known, wanted_by(users, known)) == []
    return lock.models["small"].quants


def refusal(url: str, **changes: Any) -> CorralError:
    """Why it is not locked; ``changes`` of the quant BF16."""
    with pytest.raises(CorralError) as caught:
        locked(url, {**QUANTS, "BF16": {**QUANTS["BF16"], **changes}})
    assert caught.value.where.startswith("catalog/models/small.toml: quants.BF16")
    return caught.value


def edit(path: Path, change: Callable[[Any], None]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_a_repository_is_locked_whole_with_digests_of_all_files(url: str, root: Path) -> None:
    files = locked(url)["BF16"]
    shards = [f"BF16/model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    assert [file.path for file in files] == [*shards, *(f"BF16/{name}" for name in SMALL)]
    assert [file.kind for file in files] == [None] * 2 + ["config"] * len(SMALL)
    for file in files:
        content = (root / file.path).read_bytes()
        assert (file.size_bytes, file.sha256) == (
            len(content),
            hashlib.sha256(content).hexdigest(),
        )


def test_a_single_file_needs_no_index(url: str) -> None:
    paths = [file.path for file in locked(url)["Q8_0"]]
    assert paths[0] == "F32/model.safetensors"
    assert "F32/model.safetensors.index.json" not in paths


def test_patterns_may_overlap(url: str) -> None:
    wide = {**QUANTS, "BF16": {"files": "BF16/*.safetensors", "config": ["BF16/*", "BF16/*.json"]}}
    assert locked(url, wide)["BF16"] == locked(url)["BF16"]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (["BF16/gen*.json"], "BF16/config.json and BF16/tokenizer.json"),
        (["BF16/config.json", "BF16/*config.json"], "no pattern matches BF16/tokenizer.json"),
        (["F32/*.json"], "BF16/config.json and BF16/tokenizer.json"),
    ],
)
def test_files_that_engines_read_are_asked_for(url: str, config: list[str], said: str) -> None:
    error = refusal(url, config=config)
    assert error.where.endswith("quants.BF16.config")
    assert said in error.what


def test_shards_without_their_index_are_refused(url: str) -> None:
    error = refusal(url, config=["BF16/config.json", "BF16/tokenizer.json"])
    assert "the index of the 2 shards" in error.what
    assert "*.index.json" in error.next_step


def test_an_index_with_another_shard_is_refused(url: str, root: Path) -> None:
    edit(root / INDEX, lambda index: index["weight_map"].update(more="model-00003.safetensors"))
    error = refusal(url)
    assert error.where.endswith(".files")
    assert "names model-00003.safetensors, which `files` does not match" in error.what


def test_a_shard_that_the_index_does_not_name_is_refused(url: str, root: Path) -> None:
    def forget(index: Any) -> None:
        kept = {n: f for n, f in index["weight_map"].items() if "00001-of" in f}
        index["weight_map"] = kept

    edit(root / INDEX, forget)
    assert "matches model-00002-of-00002.safetensors, which model.safe" in refusal(url).what


def test_a_set_with_a_missing_shard_is_refused(url: str, root: Path) -> None:
    (root / "BF16/model-00002-of-00002.safetensors").unlink()
    assert "without BF16/model-00002-of-00002.safetensors" in refusal(url).what


@pytest.mark.parametrize("content", ["[]", "{", '{"weight_map": {}}', '{"weight_map": {"a": 1}}'])
def test_a_damaged_index_is_named(url: str, root: Path, content: str) -> None:
    (root / INDEX).write_text(content)
    error = refusal(url)
    assert f"model.safetensors.index.json of {hub.SAFETENSORS_REPOSITORY}" in error.where


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_repository_that_needs_its_own_code_is_refused(url: str, root: Path, file: str) -> None:
    code = {"AutoModelForCausalLM": "modeling_chatglm.ChatGLM"}
    edit(root / "BF16" / "config.json", lambda c: c.update(architectures=["ChatGLMModel"]))
    assert locked(url)["BF16"]
    edit(root / "BF16" / file, lambda document: document.update(auto_map=code))
    error = refusal(url)
    assert error.where == "catalog/models/small.toml: quants.BF16"
    assert "(ChatGLMModel) brings Python code of its own: auto_map in" in error.what
    assert file in error.what
    assert "trust_remote_code, which stays off" in error.what


def test_code_that_no_engine_would_run_is_no_reason(url: str, root: Path) -> None:
    edit(root / "BF16" / "config.json", lambda c: c.update(auto_map={"AutoConfig": "x.Y"}))
    assert locked(url)["BF16"]


def test_a_configuration_without_an_architecture_is_refused(url: str, root: Path) -> None:
    edit(root / "BF16" / "config.json", lambda c: c.pop("architectures"))
    assert 'key "architectures" is missing' in refusal(url).what


def test_too_many_small_files_are_refused(url: str, root: Path) -> None:
    for number in range(95):
        (root / "BF16" / f"{number}.json").write_text("{}")
    assert "match 101 files, more than 100" in refusal(url).what


def test_a_small_file_that_differs_from_its_description_is_refused(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.hub_store._LFS_SUFFIXES", (".safetensors", "tokenizer.json"))
    assert locked(url)["BF16"]
    monkeypatch.setattr("corral.lock.resolve.content", lambda *_, **__: b"{}")
    assert "tokenizer.json with another sha256 than it serves" in refusal(url).what
