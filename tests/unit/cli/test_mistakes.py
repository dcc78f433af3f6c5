"""A mistake keeps nobody from servers that run: it is shown beside what could be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from corral.cli.select import inventories
from corral.inventory.hosts import read_inventory
from lab.odd_host import Answer, OddHosts
from tests.samples import EXAMPLES, ROOT
from tests.unit.cli.test_cli import SITE, Corral, Said, assert_one_message, corral, edit
from tests.unit.odd_fleet import good, kept_document, odd_hosts

pytestmark = pytest.mark.slow

__all__ = ["corral"]

OTHER = """
servers = [("other-1", {"instances": [{"name": "x", "profile": "tiny-chat", "port": 8001}]})]
"""
EXAMPLE = """
servers = ([("gpu-01", {"ssh_hostname": "gpu-01.example.com"}), "gpu-02.example"], {})
"""
# file, old text, new text, words of the mistake: all of node-1 and node-2 in inventories/site.py
MISTAKES = {
    "a key of a profile": (
        "catalog/profiles/tiny-chat.toml", "slots =", "slotz =", ('"slots"',),
    ),
    "a file of a platform": (
        "catalog/platforms/debian-12.toml", "compiler =", "compilr =", ('"compiler"',),
    ),
    "a damaged lock": ("corral.lock", "{", "<<<<<<< HEAD\n{", ("damaged",)),
    "a stale lock": ("corral.lock", '"requested": "main"', '"requested": "v1"', ("stale",)),
    "a key of the host": (
        "inventories/site.py", '("node-1", {', '("node-1", {"gpu": 1, ', ('"gpus"',),
    ),
    "a key of an instance": (
        "inventories/site.py", '"port": 8001', '"prt": 8001', ('"port"',),
    ),
    "two instances on a port": ("inventories/site.py", "8002", "8001", ("port 8001",)),
    "an unknown profile": (
        "inventories/site.py", '"profile": "tiny-chat"', '"profile": "tiny-cat"', ('"tiny-chat"',),
    ),
}  # fmt: skip
# What a person types, and what of the answer is seen.
COMMANDS = {
    ("status", "node-1"): "http://127.0.0.1:9001",
    ("verify", "node-1"): "completion",
    ("history", "node-1"): "kept",
    ("show", "node-1/chat"): "now serving",
    ("stop", "node-1/chat"): "node-1/chat: stopped",
    ("start", "node-1/chat"): "node-1/chat: ready",
    ("restart", "node-1/chat"): "node-1/chat: ready",
    ("logs", "node-1/chat"): "a line of the journal",
    ("pin", "node-1/chat", "abc", "good"): "is kept as good",
    ("unpin", "node-1/chat", "good"): "is no longer kept as good",
    ("engine", "list", "node-1"): "b9999",
    ("baseline", "node-1"): "50.0 generation at 512",
    ("baseline", "node-1/chat", "--forget"): "node-1/chat: forgotten",
}
# These say with their exit code that something is not as it is planned, or not known to be.
JUDGES = ("status", "verify")


@pytest.fixture
def hosts(corral: Corral, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OddHosts:
    """node-1 and node-2 as if each was deployed once, with another port than is planned."""
    (corral.root / "files").symlink_to(ROOT / "files")
    found = odd_hosts(tmp_path / "hosts", monkeypatch)
    site = read_inventory(corral.root / "inventories/site.py")
    monkeypatch.chdir(corral.root)
    from corral.planning.load import load_planner

    for host in site.hosts:
        plan = load_planner(corral.root).plan_host(host)
        said = answers(good(plan), kept_document(plan))
        if "long" not in host.instance_names:
            # It left the inventory and does not run: nothing is wrong with that.
            there = json.loads(said[" instances"].out)
            there["instances"]["long"] |= {"pid": 0, "active": "inactive"}
            said[" instances"] = _answer(there)
        found.says(host.name, said)
    return found


def answers(usual: dict[str, Answer], document: dict[str, Any]) -> dict[str, Answer]:
    runs = {
        "unit": "corral-chat.service", "active": "active", "sub": "running", "pid": 7,
        "since": "today", "health": "ok", "proved_generation": document["generation"],
        "running_generation": document["generation"], "listening": ["http://127.0.0.1:9001"],
        "model": document["model"], "quant": document["quant"], "plan": document,
    }  # fmt: skip
    checks = [{"instance": "chat", "check": "completion", "ok": True, "detail": ""}]
    release = {"engine": "llama.cpp", "key": "b9999", "size_bytes": 1, "installed_at": None,
               "users": []}  # fmt: skip
    baseline = {
        "profile": "tiny-chat", "gpus": [], "lengths": [512], "generated_tokens": 64,
        "samples": {"generation at 512": [50, 50]}, "generation": "g", "at": "today",
    }  # fmt: skip
    return {
        " instances": _answer({"instances": {"chat": runs, "long": runs}}),
        " check": _answer(checks),
        " ready": _answer({"ready": ["chat"]}),
        " pin": _answer({"pinned": "abc", "name": "good"}),
        " unpin": _answer({"unpinned": "abc", "name": "good"}),
        " releases": _answer([release]),
        " baselines": _answer([{"instance": "chat", "baseline": baseline, "problem": ""}]),
        " forget": _answer({"forgotten": ["chat"]}),
        "journalctl": Answer(b"a line of the journal\n"),
        "systemctl": Answer(),
        **{key: usual[key] for key in (" history", " generation")},
    }


def _answer(document: object) -> Answer:
    return Answer(json.dumps(document).encode())


def assert_shown(said: Said, shown: str, *mistake: str) -> None:
    assert shown in said.out
    assert "Traceback" not in said.out + said.err
    assert all(word in said.err for word in mistake), said.err


@pytest.mark.usefixtures("hosts")
@pytest.mark.parametrize(
    ("words", "mistake"),
    [
        *((words, "a key of a profile") for words in COMMANDS),
        *((words, mistake) for words in COMMANDS if words[0] in JUDGES for mistake in MISTAKES),
        *((("stop", "node-1/chat"), mistake) for mistake in MISTAKES),
        *((("baseline", "node-1"), mistake) for mistake in MISTAKES),
    ],
)
def test_a_mistake_is_told_beside_what_hosts_say(
    corral: Corral, words: tuple[str, ...], mistake: str
) -> None:
    file, old, new, message = MISTAKES[mistake]
    text = (corral.root / file).read_text()
    assert old in text
    (corral.root / file).write_text(text.replace(old, new, 1))
    said = corral(*words)
    # Who acts on what runs need not even look at what is planned.
    must_tell = message if words[0] in JUDGES else ()
    assert_shown(said, COMMANDS[words], *must_tell)
    assert said.code == (1 if words[0] in JUDGES else 0)


@pytest.mark.usefixtures("hosts")
@pytest.mark.parametrize(
    ("words", "text"),
    [
        *((words, "servers = 1 +") for words in COMMANDS),
        (("history", "node-1"), "raise SystemExit(3)"),
        (("history", "node-1"), "a = [('x', 7)]"),
        (("history", "node-1"), "a = (['x'], ['y'])"),
    ],
)
def test_an_inventory_that_nobody_named_hides_nothing(
    corral: Corral, words: tuple[str, ...], text: str
) -> None:
    (corral.root / "inventories/broken.py").write_text(text)
    before = corral(*words)
    assert_shown(before, COMMANDS[words], "inventories/broken.py")
    (corral.root / "inventories/broken.py").unlink()
    assert corral(*words).code == before.code


@pytest.mark.usefixtures("hosts")
def test_a_named_inventory_that_cannot_be_run_is_one_message(corral: Corral) -> None:
    (corral.root / "inventories/broken.py").write_text("servers = 1 +")
    said = corral("status", "node-1", "-i", "inventories/broken.py")
    assert (said.code, said.out) == (1, "")
    assert "SyntaxError" in said.err


@pytest.mark.usefixtures("hosts")
@pytest.mark.parametrize("words", [("history", "node-2"), ("verify", "node-2")])
def test_a_typo_in_the_data_of_a_neighbour_is_none_of_a_host(
    corral: Corral, words: tuple[str, ...]
) -> None:
    edit(corral.root / "inventories/site.py", '("node-1", {', '("node-1", {"gpu": 1, ')
    said = corral(*words)
    # Servers of other tests may still say something there.
    assert (said.code, "Next: " in said.err) == (0, False)


@pytest.mark.usefixtures("hosts")
@pytest.mark.parametrize("command", JUDGES)
def test_a_host_whose_name_cannot_be_used_is_told_where_all_are_meant(
    command: str, corral: Corral
) -> None:
    edit(
        corral.root / "inventories/site.py",
        'servers = [("node-1", {',
        """servers = [
    ("..", {}), ("node-1", {""",
    )
    assert "'..'" not in corral(command, "node-1").err
    said = corral(command, "-i", "inventories/site.py")
    assert (said.code, said.err.count("'..'")) == (1, 1)
    assert "node-2" in said.out


@pytest.mark.usefixtures("hosts")
def test_an_inventory_that_describes_no_host_is_one_message(corral: Corral) -> None:
    for text, message in (
        ("servers = 7", "no.py: describes no host"),
        ("a = [('..', {})]", "'..'"),
    ):
        (corral.root / "inventories/no.py").write_text(text)
        assert_one_message(corral("status", "-i", "inventories/no.py"), message)


@pytest.mark.usefixtures("hosts")
def test_a_profile_that_others_use_is_none_of_a_host(corral: Corral) -> None:
    edit(corral.root / "catalog/profiles/glm-4.7-q2.toml", "slots", "slotz")
    said = corral("verify", "node-2")
    # Servers of other tests may still say something there.
    assert (said.code, "Next: " in said.err) == (0, False)


@pytest.mark.usefixtures("hosts")
def test_status_shows_what_listens_beside_what_is_planned(corral: Corral) -> None:
    said = corral("status", "node-2")
    assert said.code == 1
    (line,) = [row for row in said.out.splitlines() if " chat " in row]
    assert "http://127.0.0.1:9001, planned http://127.0.0.1:8001" in line
    assert "tiny-glm-moe Q8_0" in line
    assert " ok " in line
    # What the host has beside what the inventory names.
    (stranger,) = [row for row in said.out.splitlines() if " long " in row]
    assert "not in the inventory" in stranger


def test_a_plan_is_made_beside_the_mistake_of_another_host(corral: Corral) -> None:
    before = corral("plan", "node-1").out
    edit(corral.root / "inventories/site.py", '("node-2", {', '("node-2", {"gpu": 1, ')
    said = corral("plan", "node-1")
    assert said.code == 0
    assert "built on node-1 (the only host with this key)" in said.out
    assert said.out.partition("shards,")[2] == before.partition("shards,")[2]
    assert "shown without node-2" in said.err
    assert '"gpus"' in said.err


def test_a_plan_is_not_made_of_a_host_with_a_mistake(corral: Corral) -> None:
    edit(corral.root / "inventories/site.py", '("node-1", {', '("node-1", {"gpu": 1, ')
    said = corral("plan", "node-1")
    assert (said.code, said.out) == (1, "")
    assert '"gpus"' in said.err


def test_examples_are_read_when_they_are_named(
    corral: Corral, monkeypatch: pytest.MonkeyPatch
) -> None:
    (corral.root / "inventories/example.py").write_text(EXAMPLE)
    (corral.root / "inventories/other.py").write_text(OTHER)
    monkeypatch.chdir(corral.root)
    paths = [str(one.path) for one in inventories(None).read]
    assert paths == ["inventories/other.py", "inventories/site.py"]
    said = corral("status", "gpu-01")
    assert said.code == 1
    assert "add -i inventories/example.py" in said.err
    named = inventories(Path("inventories/example.py")).read
    assert [host.name for host in named[0].hosts] == ["gpu-01", "gpu-02.example"]


def test_the_production_inventory_is_an_example_until_it_names_hosts() -> None:
    path = EXAMPLES / "inventories/prod.py"
    assert read_inventory(path).is_example
    assert not read_inventory(EXAMPLES / "inventories/lab.py").is_example


@pytest.mark.parametrize("address", ["gpu-01.example.org.uk", "10.0.0.1", "myexample.com"])
def test_an_inventory_with_a_host_of_somebody_is_none(tmp_path: Path, address: str) -> None:
    path = tmp_path / "own.py"
    path.write_text(EXAMPLE.replace("gpu-01.example.com", address))
    assert not read_inventory(path).is_example


def test_what_is_right_in_a_host_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(SITE.replace('("node-1", {', '("node-1", {"ssh_port": 7, "canari": True, '))
    found = read_inventory(path)
    assert found.hosts[0].data["ssh_port"] == 7
    assert found.hosts[0].instance_names == ("chat", "long")
    assert set(found.mistakes) == {"node-1"}


def test_a_lock_error_names_the_inventory_that_lacks_something(corral: Corral) -> None:
    (corral.root / "elsewhere.py").write_text(SITE)
    edit(corral.root / "corral.lock", '"requested": "main"', '"requested": "v1"')
    said = corral("plan", "node-1", "-i", "elsewhere.py")
    assert "run `corral lock elsewhere.py`" in said.err
    said = corral("plan", "node-1")
    assert "run `corral lock inventories/site.py`" in said.err
    said = corral("lock", "--check", "elsewhere.py")
    assert "run `corral lock elsewhere.py`" in said.err


def test_a_lock_of_examples_alone_is_none(corral: Corral) -> None:
    (corral.root / "inventories/site.py").write_text(EXAMPLE)
    said = corral("lock")
    assert said.code == 1
    assert "`corral lock INVENTORY`" in said.err


FRONT = """
chat = {"name": "chat", "profile": "tiny-chat", "port": 8001, "address": "10.0.0.7"}
near = ["10.0.0.0/24"]
gate = {"aliases": {"tiny-glm-moe": {"port": 8000}}, "trusted_networks": near, "address": "0.0.0.0"}
servers = [("node-1", {"instances": [chat]}), ("gw", {"gateway": gate})]
"""
ANSWERED = {
    "servers": [
        {"server": "node-1_chat", "pool": "tiny-glm-moe", "up": True, "admin": "ready",
         "weight": 100, "sessions": 0, "check": "L7OK", "until": None}
    ],
    "sessions_left": 0, "seconds": 0.1, "serving": True,
}  # fmt: skip


@pytest.fixture
def front(corral: Corral, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OddHosts:
    """A gateway before one server; it answers all that it is asked."""
    (corral.root / "files").symlink_to(ROOT / "files")
    found = odd_hosts(tmp_path / "hosts", monkeypatch)
    (corral.root / "inventories/site.py").write_text(FRONT)
    found.says("gw", _answer(ANSWERED))
    return found


@pytest.mark.usefixtures("front")
@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("catalog/profiles/tiny-chat.toml", "slots =", "slotz ="),
        ("inventories/site.py", '"instances": [chat]', '"instances": [chat], "gpu": 1'),
        ("inventories/site.py", '"aliases": {"tiny-glm-moe"', '"aliases": {"tiny-glm"'),
        ("inventories/site.py", '("gw", {', '("gw", {"canari": True, '),
        ("inventories/site.py", '"address": "0.0.0.0"}\nservers', '"adress": "0.0.0.0"}\nservers'),
    ],
)
def test_a_gateway_is_asked_what_cannot_be_planned(
    corral: Corral, file: str, old: str, new: str
) -> None:
    edit(corral.root / file, old, new)
    status = corral("gateway", "status")
    assert status.code == 1
    assert "node-1_chat" in status.out
    assert "Next: " in status.err
    drained = corral("gateway", "drain", "node-1/chat")
    assert (drained.code, "gw: node-1/chat drained" in drained.out) == (0, True)
    assert corral("gateway", "ready", "node-1/chat").code == 0
    unknown = corral("gateway", "drain", "node-1/other")
    assert unknown.code == 1
    assert "behind no gateway" in unknown.err


def test_a_silent_gateway_keeps_nobody_from_another_one(corral: Corral, front: OddHosts) -> None:
    """Neither can be planned, and one does not answer."""
    site = corral.root / "inventories/site.py"
    edit(site, '"aliases": {"tiny-glm-moe"', '"aliases": {"tiny-glm"')
    site.write_text(site.read_text() + 'servers.append(("mute", {**dict(servers)["gw"]}))\n')
    front.says("mute", Answer(code=255))
    ready = corral("gateway", "ready", "node-1/chat")
    assert (ready.code, "gw: node-1/chat serves" in ready.out) == (0, True)
    assert "mute" in ready.err
    # Who knows whether the other one has it.
    unknown = corral("gateway", "ready", "node-1/other")
    assert (unknown.code, "mute" in unknown.err) == (1, True)
    assert "behind no gateway" not in unknown.err


@pytest.mark.usefixtures("front")
def test_a_gateway_without_a_mistake_is_planned(corral: Corral) -> None:
    said = corral("gateway", "status")
    # Servers of other tests may still say something there.
    assert (said.code, "Next: " in said.err) == (0, False)
    assert "node-1/chat" in said.out
