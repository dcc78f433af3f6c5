"""`corral lock`: what is read without an inventory, and what is said of what moved."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from corral.lock.lock_file import read_lock
from lab import hub
from tests.unit.cli.test_cli import Corral, Said, assert_one_message, corral, edit

__all__ = ["corral"]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("every_commit_is_there")]

SITE = """
chat = {{"name": "chat", "profile": "tiny-chat", "port": 8001}}
servers = [("{name}", {{"instances": [chat], "hub_url": "{url}", "disposable": {disposable}}})]
"""
SHARD = "Q8_0/Tiny-GLM-MoE-Q8_0.gguf"


@dataclass(frozen=True)
class Site:
    """A checkout with a hub of its own and two inventories."""

    corral: Corral
    main: Path

    def __call__(self, *words: str) -> Said:
        return self.corral("lock", *words)


@pytest.fixture
def site(corral: Corral, tmp_path: Path) -> Iterator[Site]:
    main = tmp_path / "hub/repos/corral-lab/Tiny-GLM-MoE-GGUF/main"
    for path in (SHARD, "F16/Tiny-GLM-MoE-F16.gguf", "README.md"):
        (main / path).parent.mkdir(parents=True, exist_ok=True)
        (main / path).write_bytes(path.encode())
    with hub.running(tmp_path / "hub", log=io.StringIO()) as url:
        folder = corral.root / "inventories"
        (folder / "site.py").write_text(SITE.format(name="node-1", url=url, disposable=False))
        (folder / "other.py").write_text(SITE.format(name="node-2", url=url, disposable=False))
        down = SITE.format(name="lab-1", url="http://127.0.0.1:9", disposable=True)
        (folder / "lab.py").write_text(down)
        (corral.root / "corral.lock").unlink()
        yield Site(corral, main)


def test_the_lab_is_left_out_unless_it_is_named(site: Site) -> None:
    said = site()
    assert (said.code, said.err) == (0, "")
    assert "model tiny-glm-moe: locked at" in said.out
    assert "to fetch: node-2 27 bytes, node-1 27 bytes" in said.out
    said = site()
    assert (
        said.out == "corral.lock is current for inventories/other.py, inventories/site.py; "
        "examples, labs and other inventories are read only when named\n"
    )
    assert "unchecked" in site("inventories/lab.py").out


def test_a_lab_alone_is_no_inventory_to_lock(site: Site) -> None:
    for name in ("site", "other"):
        (site.corral.root / f"inventories/{name}.py").unlink()
    said = site()
    assert_one_message(said, "apart from examples and labs")
    assert "such as `corral lock inventories/lab.py`" in said.err


def test_what_moved_is_said_for_all_hosts_that_share_the_lock(site: Site) -> None:
    site()
    before = (site.corral.root / "corral.lock").read_text()
    (site.main / SHARD).write_bytes(b"uploaded again")
    said = site("inventories/site.py")
    assert (said.code, said.err) == (0, "")
    assert "`corral lock inventories/site.py --update tiny-glm-moe`" in said.out
    assert "corral.lock is current" in said.out
    assert (site.corral.root / "corral.lock").read_text() == before
    said = site("inventories/site.py", "--update", "tiny-glm-moe")
    assert "to fetch: node-2 14 bytes, node-1 14 bytes" in said.out
    assert "a deploy restarts node-2/chat, node-1/chat" in said.out
    (shard,) = read_lock(site.corral.root / "corral.lock").models["tiny-glm-moe"].quants["Q8_0"]
    assert shard.size_bytes == len(b"uploaded again")


def test_a_name_that_no_host_uses_is_refused(site: Site) -> None:
    said = site("inventories/site.py", "--update", "tiny-glm-mo")
    assert_one_message(said, "--update tiny-glm-mo", 'did you mean "tiny-glm-moe"')
    assert not (site.corral.root / "corral.lock").exists()


def test_the_old_option_names_the_new_one(site: Site) -> None:
    said = site("inventories/site.py", "--renew", "vllm")
    assert_one_message(said, "`corral lock inventories/site.py --update vllm`")


def test_a_mistake_in_an_inventory_is_refused(site: Site) -> None:
    edit(site.corral.root / "inventories/other.py", '"port"', '"prt"')
    assert_one_message(site(), "other.py", '"instances.0.prt"')
