"""What a host with ``prometheus`` in its ``monitoring`` gets, for the whole inventory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from corral.errors import CorralError
from corral.inventory.hosts import Host, parse_host
from corral.paths import HOST_PATHS
from corral.plan.monitoring import MonitoringPlan
from corral.planning.fleet import plan_fleet
from corral.planning.gateways import needed_keys
from corral.store.api_keys import LostKeysError, keep_keys
from corral.store.gateway_keys import METRICS, SCRAPE
from corral.store.scrape_secrets import changed_secrets, secret_texts
from tests.samples import CHAT, SOCKET, host, planner
from tests.unit.monitoring.test_rules import ran

FOLDER = HOST_PATHS.prometheus
HOOK = {"webhook_url": "https://alerts.example.com/corral", "with_token": True}
MAIL = {
    "email_to": "ops@example.com", "email_from": "gpu@example.com", "smarthost": "mail:587",
    "username": "gpu", "wants": "page",
}  # fmt: skip
OPEN = {**CHAT, "address": "10.0.0.8"}


def watcher(**prometheus: Any) -> Host:
    return host(CHAT, name="watcher", monitoring={"prometheus": prometheus})


def other(**data: Any) -> Host:
    return host(OPEN, SOCKET, name="other", monitoring={"address": "10.0.0.8"}, **data)


def planned(*hosts: Host) -> MonitoringPlan:
    found = plan_fleet(hosts, planner()).plan(hosts[0].name).monitoring
    assert found
    return found


def receivers(**found: Any) -> dict[str, Any]:
    return {"alertmanager": {"receivers": found}}


def targets(plan: MonitoringPlan, job: str) -> list[str]:
    groups = json.loads(plan.files[f"{FOLDER}/targets/{job}.json"])
    return [address for group in groups for address in group["targets"]]


def drop_in(plan: MonitoringPlan, unit: str) -> str:
    return plan.files[f"/etc/systemd/system/{unit}.service.d/corral.conf"]


def test_it_scrapes_the_whole_inventory_and_its_own_loopback() -> None:
    plan = planned(watcher(), other())
    assert targets(plan, "corral-hosts") == ["10.0.0.8:9100", "127.0.0.1:9100"]
    assert targets(plan, "corral-servers-watcher") == ["127.0.0.1:8001"]
    assert targets(plan, "corral-servers-other") == ["10.0.0.8:8001"]
    assert plan.packages == ("prometheus-node-exporter", "prometheus")
    assert "prometheus.service" in plan.units
    assert plan_fleet([watcher(), other()], planner()).plan("other").monitoring != plan


def test_it_listens_where_the_inventory_says_alone_and_keeps_what_it_says() -> None:
    plan = planned(watcher(address="10.0.0.7", port=9091, retention_days=7, retention_gib=2))
    text = drop_in(plan, "prometheus")
    assert "--web.listen-address=10.0.0.7:9091 " in text
    assert "--storage.tsdb.retention.time=7d --storage.tsdb.retention.size=2GB " in text
    assert plan.answers == {"prometheus.service": "http://10.0.0.7:9091/-/healthy"}
    manager = drop_in(planned(watcher(**receivers(ops=HOOK))), "prometheus-alertmanager")
    assert "--web.listen-address=127.0.0.1:9093 " in manager
    assert "--cluster.listen-address= " in manager, "it would listen on all addresses"


def test_promtool_reads_the_configuration(tmp_path: Path) -> None:
    for path, text in planned(watcher(**receivers(ops=HOOK)), other()).files.items():
        if path.startswith(FOLDER):
            file = tmp_path / path.removeprefix(f"{FOLDER}/")
            file.parent.mkdir(exist_ok=True, parents=True)
            file.write_text(text)
    ran(tmp_path, "check", "config", "--syntax-only", "prometheus.yml")
    ran(tmp_path, "check", "rules", "rules/corral.yml")


def test_receivers_get_what_they_want_with_secrets_from_files() -> None:
    plan = planned(watcher(**receivers(hook=HOOK, mail=MAIL)))
    document = yaml.safe_load(plan.files[f"{FOLDER}/alertmanager.yml"])
    every, pages = document["route"]["routes"]
    assert (every["receiver"], every["continue"], "matchers" in every) == ("to-hook", True, False)
    assert pages["matchers"] == ['severity="page"']
    _, hook, mail = document["receivers"]
    at = "/run/credentials/prometheus-alertmanager.service"
    (sent,) = hook["webhook_configs"]
    assert sent["http_config"] == {"authorization": {"credentials_file": f"{at}/hook"}}
    (sent,) = mail["email_configs"]
    assert (sent["auth_password_file"], sent["require_tls"]) == (f"{at}/mail", True)
    kept = f"{FOLDER}/secrets/prometheus-alertmanager"
    text = drop_in(plan, "prometheus-alertmanager")
    assert f"LoadCredential=hook:{kept}/hook\nLoadCredential=mail:{kept}/mail\n" in text
    assert plan.secrets[f"{kept}/mail"] == "watcher/alerts_mail"


def test_prometheus_reads_keys_of_scraping_that_root_keeps() -> None:
    plan = planned(watcher(), other())
    (path,) = [one for one, name in plan.secrets.items() if name == f"other/{SCRAPE}"]
    assert f"LoadCredential=corral-servers-other:{path}\n" in drop_in(plan, "prometheus")
    config = yaml.safe_load(plan.files[f"{FOLDER}/prometheus.yml"])
    jobs = {one["job_name"]: one for one in config["scrape_configs"]}
    read = jobs["corral-servers-other"]["authorization"]["credentials_file"]
    assert read == "/run/credentials/prometheus.service/corral-servers-other"
    assert "authorization" not in jobs["corral-hosts"]


def test_its_deploy_needs_the_keys_of_all_that_it_scrapes() -> None:
    spec = {"aliases": {"small": {"port": 8000}}, "address": "10.0.0.9"}
    gateway = host(name="gate", gateway={**spec, "trusted_networks": ["10.0.0.0/24"]})
    hosts = [watcher(), other(), gateway]
    fleet = plan_fleet(hosts, planner())
    names = {(one.name, key) for one, key in needed_keys(hosts[0], hosts, fleet.gateways)}
    assert {("watcher", SCRAPE), ("other", SCRAPE), ("gate", METRICS)} <= names
    assert targets(planned(*hosts), "corral-gateway-gate") == ["10.0.0.9:8404"]
    assert ("other", SCRAPE) not in {
        (one.name, key) for one, key in needed_keys(gateway, hosts, fleet.gateways)
    }


def test_a_host_that_cannot_be_read_is_not_dropped_from_its_targets() -> None:
    wrong = other(backend="cpu").model_copy(update={"name": "third"})
    hosts = [watcher(), other(), wrong]
    mistake = CorralError("third: chat", "unknown profile", "edit the inventory")
    fleet = plan_fleet(hosts, planner(), mistakes={"third": mistake})
    with pytest.raises(CorralError, match="third is to be watched and cannot be read"):
        fleet.plan("watcher")
    assert fleet.plan("other").monitoring


def test_secrets_come_from_the_store_and_are_compared_by_digest(tmp_path: Path) -> None:
    store = {"keys_folder": str(tmp_path)}
    here = host(CHAT, name="watcher", monitoring={"prometheus": receivers(ops=HOOK)}, **store)
    there = other(**store)
    plan = planned(here, there)
    with pytest.raises(LostKeysError):
        secret_texts(plan, [here, there])
    for one in (here, there):
        keep_keys(one, SCRAPE, [f"key-of-{one.name}-for-scraping", "its-second-one-is-not-sent"])
    with pytest.raises(CorralError, match=r"install -D -m 600 /dev/stdin .*watcher/alerts_ops"):
        secret_texts(plan, [here, there])
    (tmp_path / "watcher/alerts_ops").write_text("t0ken\n")
    found = secret_texts(plan, [here, there])
    kept = f"{FOLDER}/secrets"
    assert found == {
        f"{kept}/prometheus-alertmanager/ops": "t0ken",
        f"{kept}/prometheus/corral-servers-other": "key-of-other-for-scraping",
        f"{kept}/prometheus/corral-servers-watcher": "key-of-watcher-for-scraping",
    }
    assert set(changed_secrets(found, {})) == set(found)
    (tmp_path / "watcher/alerts_ops").write_text("two\nlines\n")
    with pytest.raises(CorralError, match="not one line"):
        secret_texts(plan, [here, there])


@pytest.mark.parametrize(
    ("prometheus", "said"),
    [
        ({"address": "0.0.0.0"}, "every address of the host"),
        ({"address": "::"}, "every address of the host"),
        ({"address": "gpu-1"}, "address"),
        ({"retention": "30d"}, 'unknown key "monitoring.prometheus.retention"'),
        ({"port": 9100}, "share port 9100"),
        ({"port": 8001}, "share port 8001"),
        ({"alertmanager": {"receivers": {}}}, "at least 1 item"),
        (receivers(ops={}), "either webhook_url or email_to"),
        (receivers(ops={**HOOK, **MAIL}), "either webhook_url or email_to"),
        (receivers(ops={"webhook_url": "ftp://a"}), "no URL of http"),
        (receivers(ops={"webhook_url": "https://user:pass@a/b"}), "has a secret in it"),
        (receivers(ops={"webhook_url": "https://a:x/"}), "no URL"),
        (receivers(ops={"email_to": "a@b.c"}), "needs email_from and smarthost"),
        (receivers(ops={**MAIL, "with_token": True}), "with_token is of webhook_url"),
        (receivers(ops={**MAIL, "smarthost": "mail"}), "not HOST:PORT"),
        (receivers(**{"../ops": HOOK}), "receivers"),
    ],
)
def test_mistakes_are_refused(prometheus: dict[str, Any], said: str) -> None:
    data = {"instances": [CHAT], "monitoring": {"prometheus": prometheus}}
    with pytest.raises(CorralError, match=said) as caught:
        parse_host("watcher", data)
    assert "pass" not in str(caught.value)


def test_a_port_of_the_gateway_is_taken() -> None:
    gateway = {"aliases": {"small": {"port": 9090}}}
    data = {"gateway": gateway, "monitoring": {"prometheus": {}}}
    with pytest.raises(CorralError, match=r'Prometheus\) and alias "small" share port 9090'):
        parse_host("watcher", data)
