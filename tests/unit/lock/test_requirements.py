"""Requirements files: compiled once, kept, and never another than the lock names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from corral.catalog.entries import Engine
from corral.catalog.python_environment import PythonEnvironment
from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.lock.lock_file import Lock, stale, wanted_by
from corral.lock.requirements import (
    Compiled,
    RequirementsFiles,
    compile_all,
    compile_requirements,
)
from lab.wheel_index import Index, serving, sha256_of
from tests.samples import CHAT, ROOT, catalog, host, lock
from tests.wheels import make_wheel

pytestmark = pytest.mark.slow

LEAF = {"leaf.py": ""}


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    """An engine that requires a leaf and an ornament."""
    folder = tmp_path / "wheels"
    make_wheel(folder, "made_engine", {}, requires=("made-leaf", "ornament"))
    make_wheel(folder, "made_leaf", LEAF)
    make_wheel(folder, "ornament", {})
    with serving(folder) as server:
        yield server


def environment(served: Index, **changes: Any) -> PythonEnvironment:
    data = {"requirements": ["made-engine==1.0"], "python": ">=3.9,<3.15", "index": served.url}
    return PythonEnvironment.model_validate({**data, **changes})


def add(index: Index, name: str, version: str) -> None:
    path = make_wheel(index.folder, name, LEAF, version=version)
    index.digests[path.name] = sha256_of(path)


def pins(text: str) -> list[str]:
    return re.findall(r"^(\S+==\S+)", text, re.MULTILINE)


def test_everything_is_pinned_with_hashes_and_without_an_address(index: Index) -> None:
    text = compile_requirements("made", environment(index))
    assert pins(text) == ["made-engine==1.0", "made-leaf==1.0", "ornament==1.0"]
    assert all(f"--hash=sha256:{digest}" in text for digest in index.digests.values())
    assert "http" not in text
    assert "--index" not in text


def test_what_is_left_out_is_not_locked(index: Index) -> None:
    text = compile_requirements("made", environment(index, without=["Ornament"]))
    assert pins(text) == ["made-engine==1.0", "made-leaf==1.0"]


def test_a_folder_of_wheels_is_enough(index: Index) -> None:
    folder = environment(index, index=None, find_links=index.folder.as_uri())
    assert compile_requirements("made", folder).count("--hash") == 3
    assert index.asked == []


def test_a_mirror_replaces_what_the_catalog_names(index: Index) -> None:
    elsewhere = environment(index, index="http://127.0.0.1:9/simple")
    assert pins(compile_requirements("made", elsewhere, index.url))


def test_an_index_that_is_down_is_a_clear_error(index: Index) -> None:
    elsewhere = environment(index, index="http://127.0.0.1:9/simple")
    with pytest.raises(CorralError) as caught:
        compile_requirements("made", elsewhere)
    assert caught.value.where == "catalog/engines/made.toml: python"
    assert "127.0.0.1:9" in caught.value.what
    assert "name an index" in caught.value.next_step


def test_a_requirement_that_nobody_has_is_a_clear_error(index: Index) -> None:
    with pytest.raises(CorralError, match="made-engine==9"):
        compile_requirements("made", environment(index, requirements=["made-engine==9"]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"requirements": ["--index-url=http://x"]}, "is no requirement"),
        ({"requirements": ["x @ https://example.com/x.whl"]}, "names an address"),
        ({"requirements": ["x\n-r other"]}, "is no requirement"),
        ({"requirements": []}, "at least 1"),
        ({"python": "<3.15"}, "has no lowest version"),
        ({"python": "three"}, "is no range of versions"),
        ({"index": "https://user:secret@example.com"}, "should match pattern"),
        ({"without": ["--x y"]}, "should match pattern"),
    ],
)
def test_the_catalog_refuses_what_is_none(index: Index, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        environment(index, **changes)


class Checkout:
    """A catalog with one environment, hosts that use it, and its files."""

    def __init__(self, root: Path, index: Index) -> None:
        self.files, self.index, self.lock = RequirementsFiles(root), index, lock()
        self.entry = environment(index)
        self.hosts: list[Host] = [host({**CHAT, "engine": "made"})]

    @property
    def catalog(self) -> Any:
        known = catalog()
        made = Engine(kind="vllm", python=self.entry)
        return known.model_copy(update={"engines": {**known.engines, "made": made}})

    def compiled(self, **options: Any) -> dict[str, Compiled]:
        return compile_all(self.lock, self.catalog, self.hosts, self.files, **options)

    def write(self, **options: Any) -> str:
        """As `corral lock` does; returns the file of the environment."""
        found = self.compiled(**options)
        self.files.write(found)
        entries = {name: one.entry for name, one in found.items()}
        self.lock = self.lock.model_copy(update={"engines": {**self.lock.engines, **entries}})
        return self.files.read("made", self.lock.engines["made"])


@pytest.fixture
def checkout(tmp_path: Path, index: Index) -> Checkout:
    return Checkout(tmp_path, index)


def test_what_is_locked_stays_locked(checkout: Checkout) -> None:
    before = checkout.write()
    add(checkout.index, "made_leaf", "1.1")
    checkout.index.asked.clear()
    assert checkout.write() == before
    assert checkout.index.asked == []


def test_what_somebody_asks_for_by_name_is_locked_again(checkout: Checkout) -> None:
    checkout.write()
    add(checkout.index, "made_leaf", "1.1")
    assert "made-leaf==1.1" in checkout.write(renew=["made"])
    with pytest.raises(CorralError, match="other: no Python environment that these hosts use"):
        checkout.write(renew=["other"])


def test_a_new_version_of_the_engine_keeps_the_others(checkout: Checkout) -> None:
    """An upgrade is one line; what it does not force stays."""
    checkout.write()
    add(checkout.index, "made_leaf", "1.1")
    add(checkout.index, "made_engine", "2.0")
    old = checkout.index.folder / "made_engine-2.0-py3-none-any.whl"
    old.unlink()
    made = make_wheel(
        checkout.index.folder, "made_engine", {}, version="2.0", requires=("made-leaf",)
    )
    checkout.index.digests[made.name] = sha256_of(made)
    checkout.entry = environment(checkout.index, requirements=["made-engine==2.0"])
    wanted = wanted_by(checkout.hosts, checkout.catalog)
    (problem,) = stale(checkout.lock, checkout.catalog, wanted)
    assert "locked for made-engine==1.0 for Python" in problem
    assert pins(checkout.write()) == ["made-engine==2.0", "made-leaf==1.0"]


@pytest.mark.parametrize("damage", ["missing", "other"])
def test_a_file_that_the_lock_does_not_name_is_refused_and_made_again(
    checkout: Checkout, damage: str
) -> None:
    before, path = checkout.write(), checkout.files.path("made")
    if damage == "missing":
        path.unlink()
    else:
        path.write_text(before + "more==1\n")
    with pytest.raises(CorralError) as caught:
        checkout.files.read("made", checkout.lock.engines["made"], inventory="inventories/x.py")
    assert caught.value.where == "corral.lock.d/made.txt"
    assert "git checkout corral.lock corral.lock.d" in caught.value.next_step
    assert "corral lock inventories/x.py" in caught.value.next_step
    (problem,) = checkout.files.stale(checkout.lock, wanted_by(checkout.hosts, checkout.catalog))
    assert problem.startswith("corral.lock.d/made.txt is ")
    assert pins(checkout.write()) == pins(before)


def test_files_that_a_lock_no_longer_names_are_removed(checkout: Checkout) -> None:
    checkout.write()
    checkout.files.remove_unused(checkout.lock)
    assert checkout.files.path("made").exists()
    checkout.files.remove_unused(Lock())
    assert not checkout.files.path("made").exists()


def test_a_mirror_that_is_no_index_is_refused(checkout: Checkout) -> None:
    sources = {"made": "git://10.0.0.1/x.git"}
    checkout.hosts = [host({**CHAT, "engine": "made"}, engine_sources=sources)]
    with pytest.raises(CorralError, match="is no simple index"):
        checkout.compiled()


def test_hosts_get_the_uv_that_corral_pins(tmp_path: Path) -> None:
    found = RequirementsFiles(ROOT).installer()
    assert re.match(r"uv==[\d.]+ \\\n    --hash=sha256:[0-9a-f]{64}", found)
    assert len(pins(found)) == 1
    (tmp_path / "requirements.lock").write_text("uvicorn==1 \\\n    --hash=sha256:aa\nuv==1\n")
    with pytest.raises(CorralError, match="does not pin uv with its hashes"):
        RequirementsFiles(tmp_path).installer()
