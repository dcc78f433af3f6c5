"""The tests' copies of catalog, inventory and lock file are those that the checkout ships.

A file that was adapted here is its owner's business, and no test looks at it. Which ones were not,
git knows: they are as they were in the commit that last changed their copy.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.samples import EXAMPLES, ROOT

SHIPPED = ("catalog", "inventories/prod.py", "corral.lock")


def git(root: Path, *words: str) -> str:
    """What git says; nothing where there is no repository, or none that remembers."""
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def files(folder: Path) -> Iterator[str]:
    for name in SHIPPED:
        found = folder / name
        paths = [found] if found.is_file() else sorted(found.rglob("*.toml"))
        yield from (str(path.relative_to(folder)) for path in paths)


def not_adapted(root: Path, copies: str) -> Iterator[str]:
    """Files that are as they were in the commit that last changed their copy."""
    if git(root, "rev-parse", "--is-shallow-repository").strip() != "false":
        return
    for name in files(root / copies):
        path = root / name
        commit = git(root, "log", "-1", "--format=%H", "--", f"{copies}/{name}").strip()
        if commit and path.is_file() and git(root, "show", f"{commit}:{name}") == path.read_text():
            yield name


def test_copies_are_what_is_shipped() -> None:
    copies = str(EXAMPLES.relative_to(ROOT))
    differ = [
        name
        for name in not_adapted(ROOT, copies)
        if (ROOT / name).read_bytes() != (EXAMPLES / name).read_bytes()
    ]
    assert not differ, "`make examples` copies them"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with two files, each with its copy."""
    git(tmp_path, "init", "--quiet")
    for name in ("corral.lock", "inventories/prod.py"):
        for path in (tmp_path / name, tmp_path / "copies" / name):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("as shipped\n")
    commit(tmp_path)
    return tmp_path


def commit(root: Path) -> None:
    git(root, "add", ".")
    who = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    git(root, *who, "commit", "--quiet", "--message", "a change")


@pytest.mark.parametrize("committed", [True, False])
def test_what_was_adapted_is_left_alone(checkout: Path, committed: bool) -> None:
    assert set(not_adapted(checkout, "copies")) == {"corral.lock", "inventories/prod.py"}
    (checkout / "inventories/prod.py").write_text("my own\n")
    if committed:
        commit(checkout)
    assert set(not_adapted(checkout, "copies")) == {"corral.lock"}
    (checkout / "corral.lock").unlink()
    assert set(not_adapted(checkout, "copies")) == set()


def test_a_copy_that_went_its_own_way_is_seen(checkout: Path) -> None:
    (checkout / "copies/corral.lock").write_text("of the tests alone\n")
    commit(checkout)
    assert "corral.lock" in set(not_adapted(checkout, "copies"))


def test_without_a_repository_nothing_is_known(tmp_path: Path) -> None:
    (tmp_path / "copies").mkdir()
    for path in (tmp_path / "corral.lock", tmp_path / "copies/corral.lock"):
        path.write_text("as shipped\n")
    assert set(not_adapted(tmp_path, "copies")) == set()
