"""Instances that left the inventory: shown everywhere, and reached as HOST/INSTANCE."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from corral.inventory.hosts import read_inventory
from corral.planning.load import load_planner
from lab.odd_host import Answer, OddHosts
from tests.samples import ROOT
from tests.unit.cli.test_cli import Corral, assert_one_message, corral
from tests.unit.cli.test_mistakes import answers
from tests.unit.odd_fleet import good, kept_document, odd_hosts

__all__ = ["corral"]

pytestmark = pytest.mark.slow

STEP = "corral remove node-1/old"


@pytest.fixture
def hosts(corral: Corral, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OddHosts:
    """node-1 still serves `old`, which no inventory names."""
    (corral.root / "files").symlink_to(ROOT / "files")
    found = odd_hosts(tmp_path / "hosts", monkeypatch)
    monkeypatch.chdir(corral.root)
    for host in read_inventory(corral.root / "inventories/site.py").hosts:
        plan = load_planner(corral.root).plan_host(host)
        said = answers(good(plan), kept_document(plan))
        if host.name == "node-1":
            said |= with_old(said)
        found.says(host.name, said)
    return found


def with_old(said: dict[str, Answer], **changes: object) -> dict[str, Answer]:
    there = json.loads(said[" instances"].out)
    old = {**there["instances"]["chat"], "unit": "corral-old.service", "at_boot": True, **changes}
    there["instances"]["old"] = old
    there["strange_units"] = ["corral-exporter.service"]
    (report,) = json.loads(said[" history"].out)
    reports = [report, {**report, "instance": "old"}]
    return {
        " instances": replace(said[" instances"], out=json.dumps(there).encode()),
        " history": replace(said[" history"], out=json.dumps(reports).encode()),
    }


@pytest.mark.usefixtures("hosts")
@pytest.mark.parametrize("name", ["node-1", "node-1/old"])
def test_status_and_verify_say_so(corral: Corral, name: str) -> None:
    said = corral("status", name)
    assert said.code == 1
    assert "not in the inventory" in said.out
    assert f"node-1/old is not in the inventory. Next: `{STEP}`" in said.err
    said = corral("verify", name)
    assert said.code == 1
    (row,) = (line for line in said.out.splitlines() if " inventory " in line and "old" in line)
    assert "FAILED" in row
    assert "it runs, and starts at boot" in row
    assert STEP in row


@pytest.mark.usefixtures("hosts")
def test_verify_tells_of_a_service_that_no_plan_names(corral: Corral) -> None:
    row = "corral-exporter.service starts at boot and no plan names it"
    assert row in corral("verify", "node-1").out
    # Who asks for one instance, does not ask for the host.
    assert row not in corral("verify", "node-1/chat").out


@pytest.mark.usefixtures("hosts")
def test_others_are_not_shown_to_who_asks_for_one_instance(corral: Corral) -> None:
    for command in ("status", "verify", "history"):
        said = corral(command, "node-1/chat")
        assert "old" not in said.out + said.err


@pytest.mark.usefixtures("hosts")
def test_history_shows_it_with_the_others_of_its_host(corral: Corral) -> None:
    said = corral("history", "node-1")
    assert "node-1/old" in said.out
    assert "node-1/old is not in the inventory" in said.err


def test_it_is_stopped_and_its_log_is_read_by_name(corral: Corral, hosts: OddHosts) -> None:
    assert corral("stop", "node-1/old").out.endswith("node-1/old: stopped\n")
    corral("logs", "node-1/old")
    asked = " ".join(hosts.asked("node-1"))
    assert "systemctl stop corral-old.service" in asked
    assert "--unit=corral-old.service" in asked
    assert "corral-chat.service" not in asked


@pytest.mark.usefixtures("hosts")
@pytest.mark.parametrize("name", ["node-1/nothing", "node-2/old", "node-9/old", "old"])
def test_a_name_that_the_host_does_not_have_is_unknown(corral: Corral, name: str) -> None:
    assert_one_message(corral("stop", name), "no such host or instance")


def test_one_that_neither_runs_nor_starts_is_no_failure(corral: Corral, hosts: OddHosts) -> None:
    (host, _) = read_inventory(corral.root / "inventories/site.py").hosts
    plan = load_planner(corral.root).plan_host(host)
    said = answers(good(plan), kept_document(plan))
    hosts.says("node-1", said | with_old(said, pid=0, at_boot=False))
    (row,) = (one for one in corral("verify", "node-1").out.splitlines() if STEP in one)
    assert "FAILED" not in row
    assert "it does not run, and does not start at boot" in row


REMOVED = Answer(b'{"removed": "old", "requests_cut": 2}')
KEYS = "keys/node-1"


@pytest.fixture
def removable(corral: Corral, hosts: OddHosts, monkeypatch: pytest.MonkeyPatch) -> OddHosts:
    """node-1, with keys of its instances here."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(corral.root))
    store = corral.root / "corral" / KEYS
    store.mkdir(parents=True)
    for name in ("chat", "long", "old"):
        (store / name).write_text("k\n")
    (host, _) = read_inventory(corral.root / "inventories/site.py").hosts
    plan = load_planner(corral.root).plan_host(host)
    said = answers(good(plan), kept_document(plan))
    done = {" remove-all": Answer(b'{"removed": ["/opt/corral"]}'), " remove": REMOVED}
    hosts.says("node-1", done | said | with_old(said))
    return hosts


def test_it_is_removed_with_its_keys_here(corral: Corral, removable: OddHosts) -> None:
    said = corral("remove", "node-1/old", "-y")
    assert said.code == 0
    assert "node-1/old: removed; 2 requests were cut" in said.out
    keys = sorted(path.name for path in (corral.root / "corral" / KEYS).iterdir())
    assert keys == ["chat", "long"]
    assert any(" remove" in asked for asked in removable.asked("node-1"))


def test_one_of_the_inventory_keeps_its_keys_here(corral: Corral, removable: OddHosts) -> None:
    said = corral("remove", "node-1/chat", "-y")
    assert said.code == 0
    assert "the next deploy of node-1 installs it again" in said.out
    assert (corral.root / "corral" / KEYS / "chat").exists()
    assert removable


def test_without_a_terminal_somebody_must_have_said_yes(
    corral: Corral, removable: OddHosts
) -> None:
    said = corral("remove", "node-1/old")
    assert said.code == 1
    assert "`corral remove node-1/old -y`" in said.err
    assert not [asked for asked in removable.asked("node-1") if " remove" in asked]


@pytest.mark.usefixtures("removable")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("node-1",), "`corral remove node-1 --all`"),
        (("node-1/old", "--all"), "--all is for a whole host"),
        (("node-1/old", "--weights"), "--weights is for a whole host"),
        (("node-1/nothing",), "no such host or instance"),
    ],
)
def test_what_is_meant_must_be_plain(corral: Corral, words: tuple[str, ...], said: str) -> None:
    assert_one_message(corral("remove", *words, "-y"), said)


def test_a_mistake_in_the_inventory_makes_no_orphans(corral: Corral, removable: OddHosts) -> None:
    path = corral.root / "inventories/site.py"
    path.write_text(path.read_text().replace('"instances"', '"instnaces"', 1))
    for words in (("node-1/chat",), ("node-1", "--all")):
        said = corral("remove", *words, "-y")
        assert said.code == 1
        assert "instnaces" in said.err
    assert not [asked for asked in removable.asked("node-1") if " remove" in asked]


@pytest.mark.usefixtures("removable")
def test_a_host_is_taken_out_with_all_that_is_on_it(corral: Corral) -> None:
    said = corral("remove", "node-1", "--all", "-y")
    assert said.code == 0
    for name in ("chat", "long", "old"):
        assert f"node-1/{name}: removed" in said.out
    assert "node-1: removed /opt/corral" in said.out
    assert "take the host out of inventories/site.py" in said.out
    assert sorted(path.name for path in (corral.root / "corral" / KEYS).iterdir()) == [
        "chat", "long",
    ]  # fmt: skip
