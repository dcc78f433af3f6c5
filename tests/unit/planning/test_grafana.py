"""What a host with ``grafana`` in its ``monitoring`` gets."""

from __future__ import annotations

import configparser
import json
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from corral.catalog.entries import load_catalog
from corral.catalog.programs import ProgramSource
from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.monitoring.dashboards import DASHBOARDS
from corral.paths import HOST_PATHS
from corral.plan.host import HostPlan
from corral.plan.monitoring import MonitoringPlan
from corral.planning.fleet import plan_fleet
from corral.planning.gateways import needed_keys
from corral.preflight.monitoring import program_findings
from corral.store.gateway_keys import GRAFANA
from tests.samples import CHAT, ROOT, bare, host, planner

FOLDER = HOST_PATHS.grafana
DROP_IN = "/etc/systemd/system/grafana-server.service.d/corral.conf"
OWN = ProgramSource.model_validate(
    {
        "packages": {"packages": ["grafana"], "version": "12.4.*"},
        "source": {
            "uri": "https://apt.example.com/", "suite": "stable", "components": ["main"],
            "key_url": "https://apt.example.com/key", "key_fingerprint": "A" * 40,
        },
    }
)  # fmt: skip
SHIPPED = load_catalog(ROOT / "catalog").programs["grafana"]


def shows(address: str = "127.0.0.1", port: int = 3000) -> Host:
    grafana = {"address": address, "port": port}
    return host(CHAT, name="watcher", monitoring={"prometheus": {}, "grafana": grafana})


def whole(one: Host, program: ProgramSource | None = SHIPPED) -> HostPlan:
    base = planner()
    programs = {"grafana": program} if program else {}
    catalog = base.catalog.model_copy(update={"programs": programs})
    return plan_fleet([one], base.model_copy(update={"catalog": catalog})).plan(one.name)


def planned(one: Host, program: ProgramSource | None = SHIPPED) -> MonitoringPlan:
    found = whole(one, program).monitoring
    assert found
    return found


def settings(plan: MonitoringPlan) -> configparser.ConfigParser:
    found = configparser.ConfigParser(interpolation=None)
    found.read_string(plan.files[f"{FOLDER}/grafana.ini"])
    return found


def test_it_listens_on_loopback_and_asks_for_a_login() -> None:
    plan = planned(shows())
    found = settings(plan)
    assert dict(found["server"]) == {"http_addr": "127.0.0.1", "http_port": "3000"}
    assert found["auth.anonymous"]["enabled"] == "false"
    assert plan.answers["grafana-server.service"] == "http://127.0.0.1:3000/api/health"
    assert plan.closed == {"grafana-server.service": "http://127.0.0.1:3000/api/search"}
    # Variables of the package's own file would win over all of this.
    assert "\nEnvironmentFile=\n" in plan.files[DROP_IN]
    assert "IPAddressDeny=any" in plan.files[DROP_IN]


def test_an_address_of_the_network_is_named_and_reaches_others() -> None:
    plan = planned(shows("10.0.0.7", 3001))
    assert plan.answers["grafana-server.service"] == "http://10.0.0.7:3001/api/health"
    assert "IPAddressDeny" not in plan.files[DROP_IN]


def test_nobody_outside_is_asked() -> None:
    found = settings(planned(shows()))
    off = {
        "analytics": ("reporting_enabled", "check_for_updates", "check_for_plugin_updates"),
        "news": ("news_feed_enabled",),
        "snapshots": ("external_enabled",),
        "plugins": ("plugin_admin_enabled",),
    }
    assert {found[part][key] for part, keys in off.items() for key in keys} == {"false"}
    assert found["plugins"]["preinstall_disabled"] == "true"
    assert found["security"]["disable_gravatar"] == "true"


def test_its_password_is_of_the_store_and_reaches_it_by_a_file() -> None:
    plan, one = planned(shows()), shows()
    (secret,) = [path for path, name in plan.secrets.items() if name == f"watcher/{GRAFANA}"]
    assert (one, GRAFANA) in needed_keys(one, [one], {})
    at = "/run/credentials/grafana-server.service/admin_password"
    assert settings(plan)["security"]["admin_password"] == f"$__file{{{at}}}"
    assert f"LoadCredential=admin_password:{secret}\n" in plan.files[DROP_IN]
    # A replaced one counts from the next start on.
    assert f"--password-from-stdin <{at}'" in plan.files[DROP_IN]


def test_its_prometheus_and_all_dashboards_are_provisioned() -> None:
    plan = planned(shows())
    sources = yaml.safe_load(plan.files[f"{FOLDER}/provisioning/datasources/corral.yaml"])
    (source,) = sources["datasources"]
    assert (source["url"], source["isDefault"]) == ("http://127.0.0.1:9090", True)
    provider = yaml.safe_load(plan.files[f"{FOLDER}/provisioning/dashboards/corral.yaml"])
    folder = provider["providers"][0]["options"]["path"]
    found = [json.loads(plan.files[f"{folder}/{one.name}.json"])["uid"] for one in DASHBOARDS]
    assert found == [one.name for one in DASHBOARDS]
    home = settings(plan)["dashboards"]["default_home_dashboard_path"]
    assert home in plan.files


def test_the_hosts_own_sources_offer_it_unless_the_catalog_names_a_repository() -> None:
    plan = planned(shows())
    (program,) = plan.programs
    assert (program.package, program.version) == ("grafana", "12.4.*")
    pin = plan.files["/etc/apt/preferences.d/corral-grafana"]
    # At 1000 apt would go back to an older one, which cannot read the database.
    assert pin == "Package: grafana\nPin: version 12.4.*\nPin-Priority: 990\n"
    assert not any(path.startswith("/etc/apt/sources") for path in plan.files)
    own = planned(shows(), OWN)
    assert own.programs[0].key_fingerprint == "A" * 40
    text = own.files["/etc/apt/sources.list.d/corral-grafana.sources"]
    assert f"Signed-By: {own.programs[0].keyring}\n" in text


@pytest.mark.parametrize(
    ("program", "offered", "said"),
    [
        (SHIPPED, (), "grafana 12.4.* is pinned, the host's package sources have no version of it"),
        (SHIPPED, ("13.0.1", "12.3.9"), "the host's package sources have 13.0.1, 12.3.9"),
        (SHIPPED, ("13.0.1", "12.4.2"), ""),
        (OWN, (), ""),
    ],
)
def test_preflight_says_what_no_source_of_the_host_has(
    program: ProgramSource, offered: tuple[str, ...], said: str
) -> None:
    plan = whole(shows(), program)
    monitoring = {"programs": {"grafana": {"offered": offered}}}
    state = bare(plan, monitoring=bare(plan).monitoring.model_validate(monitoring))
    found = list(program_findings(plan, state))
    assert [said in one.what and "[source]" in one.next_step for one in found] == [True] * bool(
        said
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"grafana": {}}, 'add "prometheus"'),
        ({"prometheus": {}, "grafana": {"address": "0.0.0.0"}}, "every address"),  # noqa: S104
        ({"prometheus": {}, "grafana": {"port": 9090}}, "share port 9090"),
    ],
)
def test_mistakes_are_refused(data: dict[str, Any], said: str) -> None:
    with pytest.raises(CorralError, match=said):
        host(CHAT, monitoring=data)


def test_a_catalog_without_it_is_a_mistake() -> None:
    with pytest.raises(CorralError, match=r"add catalog/programs/grafana\.toml"):
        planned(shows(), None)


def test_a_repository_without_an_address_is_a_mistake_of_the_catalog() -> None:
    with pytest.raises(ValueError, match="source needs uri"):
        ProgramSource.model_validate(
            {**OWN.model_dump(), "source": {"suite": "stable", "components": ["main"]}}
        )
