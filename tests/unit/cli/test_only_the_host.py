"""Daily commands need the host alone: no hub, no whole lock, no right neighbour, no store."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from corral.fit.headers import HeaderStore
from corral.fit.ranges import ShardSource, SilentHubError, Waiting
from corral.inventory.hosts import read_inventory
from corral.planning.load import load_planner
from lab.odd_host import OddHosts
from tests.samples import ROOT
from tests.unit.cli.test_cli import Corral, corral, edit
from tests.unit.cli.test_mistakes import COMMANDS, answers
from tests.unit.odd_fleet import good, kept_document, odd_hosts

__all__ = ["corral"]

pytestmark = pytest.mark.slow

SITE = """
chat = {"name": "chat", "profile": "tiny-chat", "port": 8001}
long = {"name": "long", "profile": "tiny-long", "port": 8002}
other = {"name": "other", "profile": "tiny-single", "port": 8001}
gpus = {"name": "NVIDIA A100-PCIE-40GB", "count": 1}
shared = {"hub_url": "http://127.0.0.1:9", "keys_folder": "no-keys"}
servers = [
    ("node-1", {"instances": [chat, long], "gpus": gpus, **shared}),
    ("node-2", {"instances": [other], **shared}),
]
"""
DAILY = ("status", "logs", "start", "stop", "restart", "history", "show", "verify")
WORDS = {words[0]: words for words in COMMANDS if words[0] in DAILY}


def hub_is_down(corral: Corral) -> None:
    edit(corral.root / "catalog/profiles/tiny-chat.toml", "slots =", 'placement = "auto"\nslots =')


def lock_lacks_an_entry(corral: Corral) -> None:
    edit(corral.root / "corral.lock", '"Q8_0": [', '"Q9_0": [')


def lock_is_lost(corral: Corral) -> None:
    (corral.root / "corral.lock").unlink()


def neighbour_is_wrong(corral: Corral) -> None:
    edit(corral.root / "inventories/site.py", '"tiny-single"', '"tiny-cat"')


WITHOUT_PLAN = (hub_is_down, lock_lacks_an_entry, lock_is_lost)


@pytest.fixture
def hosts(corral: Corral, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OddHosts:
    """node-1 as a controller finds it that has lost its store and its headers."""
    (corral.root / "files").symlink_to(ROOT / "files")
    (corral.root / "inventories/site.py").write_text(SITE)
    found = odd_hosts(tmp_path / "hosts", monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "nothing"))
    monkeypatch.chdir(corral.root)
    host = read_inventory(corral.root / "inventories/site.py").hosts[0]
    plan = load_planner(corral.root).plan_host(host)
    found.says("node-1", answers(good(plan), kept_document(plan)))
    return found


@pytest.mark.usefixtures("hosts")
@pytest.mark.parametrize("case", WITHOUT_PLAN)
def test_without_a_plan_each_command_answers_and_says_so(
    corral: Corral, case: Callable[[Corral], None]
) -> None:
    case(corral)
    for name in DAILY:
        said = corral(*WORDS[name])
        assert COMMANDS[WORDS[name]] in said.out
        assert "Traceback" not in said.out + said.err
        if name == "status":
            assert said.out.count("plan unknown") == 2
            assert "node-1: its plan could not be had" in said.err
        elif name == "verify":
            assert "is compared with its installed generations, not with a plan" in said.err
        else:
            assert (said.code, said.err) == (0, "")


@pytest.mark.usefixtures("hosts")
def test_a_wrong_neighbour_is_none_of_the_hosts_business(corral: Corral) -> None:
    neighbour_is_wrong(corral)
    said = corral("status", "node-1")
    assert "planned http://127.0.0.1:8001" in said.out
    assert "plan unknown" not in said.out
    assert said.err == ""


@pytest.fixture
def silent_hub() -> Iterator[str]:
    """It accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_silent_hub_is_waited_for_once(
    silent_hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("corral.fit.headers.BRIEF", Waiting(byte_seconds=0.2, answer_seconds=1))
    store = HeaderStore(tmp_path, brief=True)
    for digest in ("a", "b"):
        shard = ShardSource(f"{silent_hub}/{digest}.gguf", digest * 64, 10)
        with pytest.raises(SilentHubError) as caught:
            store.header(shard)
        waited.append(caught.value.where.count("/a.gguf"))
    # The second one was not asked for: the error is that of the first.
    assert waited == [1, 1]


def test_who_plans_waits_for_a_hub_that_was_silent_once(silent_hub: str, tmp_path: Path) -> None:
    patient = HeaderStore(tmp_path)
    for digest in ("a", "b"):
        url = f"{silent_hub.rpartition(':')[0]}:9/{digest}.gguf"
        with pytest.raises(SilentHubError, match=f"/{digest}.gguf"):
            patient.header(ShardSource(url, digest * 64, 10))
