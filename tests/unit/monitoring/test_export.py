"""`corral export monitoring`: what a Prometheus gets, and what it cannot reach."""

from __future__ import annotations

import json
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from corral.cli import main
from corral.inventory.hosts import Host
from corral.monitoring.scrape import LeftOut, Target
from corral.monitoring.yaml_text import yaml_text
from corral.planning.fleet import plan_fleet
from corral.planning.gateways import instance_keys, needed_keys
from corral.store.gateway_keys import SCRAPE
from tests.samples import CHAT, EXAMPLES, SOCKET, host, planner
from tests.unit.monitoring.test_rules import ran

pytestmark = pytest.mark.slow

OPEN = {**CHAT, "address": "10.0.0.7"}
SITE = """
chat = {"name": "chat", "profile": "tiny-chat", "port": 8001, "address": "0.0.0.0"}
long = {"name": "long", "profile": "tiny-long", "port": 8002}
keys = {"keys_folder": "keys", "monitoring": {"address": "10.0.0.1"}}
servers = [
    ("node-1", {"instances": [chat, long], "ssh_hostname": "10.0.0.1", **keys}),
    ("node-2", {"instances": [chat], "ssh_hostname": "10.0.0.2", "keys_folder": "keys"}),
]
"""


def scraped(*hosts: Host) -> list[Target | LeftOut]:
    return plan_fleet(hosts, planner()).scraped()


def test_node_exporter_and_servers_are_targets_with_labels() -> None:
    exporter, server = scraped(host(OPEN, monitoring={"address": "10.0.0.7"}))
    assert isinstance(exporter, Target)
    assert isinstance(server, Target)
    assert (exporter.address, exporter.labels, exporter.key) == (
        "10.0.0.7:9100", {"host": "lab-1"}, None,
    )  # fmt: skip
    assert (server.address, server.key) == ("10.0.0.7:8001", SCRAPE)
    assert server.labels == {
        "host": "lab-1", "instance": "chat", "engine": "llama.cpp", "alias": "small",
    }  # fmt: skip


def test_a_gateway_is_scraped_with_its_own_key() -> None:
    spec: dict[str, Any] = {"aliases": {"small": {"port": 8000}}, "address": "10.0.0.7"}
    spec["trusted_networks"] = ["10.0.0.0/24"]
    *_, gateway = scraped(host(OPEN, gateway=spec))
    assert isinstance(gateway, Target)
    assert (gateway.address, gateway.key, gateway.scheme) == (
        "10.0.0.7:8404", "gateway_metrics", "http",
    )  # fmt: skip


def test_what_cannot_be_reached_says_why() -> None:
    left = scraped(host(CHAT, SOCKET, monitoring={}))
    assert all(isinstance(one, LeftOut) for one in left)
    assert [one.name for one in left if isinstance(one, LeftOut)] == [
        "lab-1", "lab-1/chat", "lab-1/private",
    ]  # fmt: skip
    (bare,) = scraped(host(OPEN))
    assert isinstance(bare, LeftOut)
    assert "not monitored" in bare.why


def test_instances_of_a_monitored_host_take_a_key_for_scraping_alone(tmp_path: Path) -> None:
    one = host(OPEN, monitoring={}, keys_folder=str(tmp_path))
    assert (one, SCRAPE) in needed_keys(one, [one], {})
    (tmp_path / "lab-1").mkdir()
    for name, key in (("chat", "c" * 30), (SCRAPE, "s" * 30)):
        (tmp_path / "lab-1" / name).write_text(f"{key}\n")
    assert instance_keys(one, "chat", [one], {}).text == f"{'c' * 30}\n{'s' * 30}\n"
    plain = host(OPEN, keys_folder=str(tmp_path))
    assert instance_keys(plain, "chat", [plain], {}).text == f"{'c' * 30}\n"
    assert needed_keys(plain, [plain], {}) == [(plain, "chat")]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("catalog", "templates"):
        shutil.copytree(EXAMPLES / folder, tmp_path / folder)
    for file in ("deploy.py", "corral.lock"):
        shutil.copy(EXAMPLES / file, tmp_path / file)
    (tmp_path / "inventories").mkdir()
    (tmp_path / "inventories" / "site.py").write_text(SITE)
    (tmp_path / "keys" / "node-1").mkdir(parents=True)
    (tmp_path / "keys" / "node-1" / SCRAPE).write_text("# of monitoring\n" + "s" * 30 + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def export(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["corral", "export", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_prometheus_reads_what_is_written(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(monkeypatch, "monitoring", "--as", "prometheus", "-o", "out") == 0
    said = capsys.readouterr()
    assert "node-1/long its profile has no metrics" in said.err
    assert "node-2 is not monitored" in said.err
    out = checkout / "out"
    ran(out, "check", "config", "prometheus.yml")
    assert len(list((out / "dashboards").iterdir())) == 4
    key = out / "keys/corral-servers-node-1"
    assert key.read_text() == "s" * 30
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    (group,) = json.loads((out / "targets/corral-servers-node-1.json").read_text())
    assert group["targets"] == ["10.0.0.1:8001"]
    assert "s" * 30 not in said.out + said.err + (out / "prometheus.yml").read_text()


def test_a_second_export_asks_for_force_and_removes_what_left(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("monitoring", "--as", "vmagent", "-o", "out")
    assert export(monkeypatch, *words) == 0
    assert "rule_files" not in yaml.safe_load((checkout / "out/vmagent.yml").read_text())
    assert export(monkeypatch, *words) != 0
    assert "--force" in capsys.readouterr().err
    old = checkout / "out/keys/corral-servers-gone"
    old.write_text("k")
    assert export(monkeypatch, *words, "--force") == 0
    assert not old.exists()


def test_a_lost_key_writes_nothing(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkout / "keys/node-1" / SCRAPE).unlink()
    assert export(monkeypatch, "monitoring", "--as", "prometheus", "-o", "out") != 0
    assert f"node-1/{SCRAPE}" in capsys.readouterr().err
    assert not (checkout / "out").exists()


@pytest.mark.usefixtures("checkout")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("chat", "--as", "prometheus", "-o", "out"), "corral export monitoring --as prometheus"),
        (("monitoring", "--as", "prometheus"), "add -o FOLDER"),
        (("monitoring", "--as", "prometheus", "-o", "deploy.py"), "is not a folder"),
    ],
)
def test_mistakes_are_refused(
    words: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert export(monkeypatch, *words) != 0
    assert said in capsys.readouterr().err


def test_yaml_holds_any_text() -> None:
    document: dict[str, Any] = {
        "a": ['x: "y" # no', {"b": "{{ $labels.host }}\n\u2028", "c": [], "d": {"e": [1, True]}}],
        "f": {},
    }
    assert yaml.safe_load(yaml_text(document)) == document
