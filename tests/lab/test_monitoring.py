"""Monitoring that runs: the distribution's Prometheus, Alertmanager and node_exporter on a host.

The tests follow one host from the deploy that adds them to the one that removes them.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from corral.monitoring.dashboards import DASHBOARDS
from corral.planning.prometheus import ALERTMANAGER, PROMETHEUS
from corral.store.api_keys import keys_in
from lab import gpus
from lab.alerts import pace
from lab.alerts.host import planning_for_a_gpu
from lab.alerts.prometheus import Prometheus
from lab.grafana_package import grafana
from lab.package_repository import KEY_FILE, Repository
from tests.lab.conftest import converge
from tests.lab.untouched import said
from tests.lab.waiting import wait_for, wait_on
from tests.lab.workspace import Workspace

N, NAME = 3, "tiny-gpu"
HOST = f"lab-{N}"
INVENTORY = "inventories/lab.py"
PLACE = '"gpus": _GPU, "backend": "cpu"'
HOOK = {"webhook_url": "http://127.0.0.1:9099/", "with_token": True, "wants": "page"}
WATCHED: dict[str, Any] = {
    "prometheus": {"alertmanager": {"receivers": {"ops": HOOK}}},
    "grafana": {},
}
# A gate that measures makes a baseline.
ON_GPU = '"name": "tiny-gpu"'
MEASURED = '"overrides": {"speed": {"epsilon": 0.9, "prompt_tokens": [64], "generated_tokens": 16}}'
PROGRAM, PACKAGES = "catalog/programs/grafana.toml", "[packages]"
GRAFANA, PINNED, NOT_PINNED = "grafana-server.service", "12.4.1", "13.0.0"
SENT = "a-t0ken-of-the-receiver"
FOLDER = "/etc/corral/prometheus"
# Writes what Alertmanager sends to a file, with the header that has the secret.
RECEIVER = """
import http.server
class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        with open("/run/hook", "a") as file:
            file.write(self.headers["Authorization"] + " " + body + "\\n")
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", 9099), Hook).serve_forever()
"""
# Rules, scrapes and figures are so much faster than in production.
TIMES = 5
PLAN = f"/var/lib/corral/instances/{NAME}/current/plan.json"
# There once a gate has measured, which an instance that runs already has no need to do again.
BASELINE = "corral-instance: Tokens/s, and the baseline of one request: baseline: {{measure}}"
# Panels that are empty until there is a fault, whose tests ask for them.
DOWN = "corral-fleet: Instances that do not answer: {{host}}/{{instance}}"
ALERTS = "corral-fleet: Alerts: {{alertname}} {{host}}"
GATEWAY = "corral-gateway"
QUERIES = {
    f"{dashboard.name}: {panel.title}: {legend}": query.replace("$__rate_interval", "1m")
    .replace("$host", HOST)
    .replace("$instance", NAME)
    for dashboard in DASHBOARDS
    if dashboard.name != GATEWAY
    for panel in dashboard.panels
    for legend, query in panel.queries.items()
}


@dataclass(frozen=True)
class Watched:
    """A host with its Prometheus."""

    lab: Workspace
    n: int = N

    def on(self, script: str) -> str:
        return self.lab.on(self.lab.layout.host_name(self.n), script)

    @property
    def prometheus(self) -> Prometheus:
        return Prometheus(self.lab.layout, self.n, pace.SCRAPE_SECONDS / TIMES)

    def look_now(self) -> None:
        """Write the textfile now; its timer would within 30 s."""
        # Asked for in a row, systemd would call it a service that starts too often.
        self.on("systemctl reset-failed corral_metrics.service")
        self.on("systemctl start corral_metrics.service")

    def put_to_work(self) -> None:
        """One completion after the other."""
        body = json.dumps({"prompt": "Say hello.", "n_predict": 16})
        shown = f"Authorization: Bearer {self.token_of_instance()}"
        asked = (
            f"curl --silent --fail -o /dev/null -H {shlex.quote(shown)} -d {shlex.quote(body)}"
            " http://127.0.0.1:8001/completion"
        )
        loop = shlex.quote(f"while {asked}; do sleep 0.2; done")
        self.on(f"systemd-run --unit=load --quiet sh -c {loop}")

    def password(self) -> str:
        """Of Grafana's administrator, by the store."""
        return (self.lab.layout.keys / HOST / "grafana_admin").read_text().split()[-1]

    def grafana(self, route: str, password: str) -> str:
        """Status and body of an answer of Grafana."""
        asked = (
            f"curl --silent --user admin:{shlex.quote(password)} -o /run/shown -w '%{{http_code}} '"
        )
        return self.on(f"{asked} http://127.0.0.1:3000{route}; cat /run/shown")

    def token_of_instance(self) -> str:
        lines = (self.lab.layout.keys / HOST / NAME).read_text().splitlines()
        return next(line for line in lines if not line.startswith("#"))


@pytest.fixture(scope="module")
def repository(
    deployed_once: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Repository]:
    """A package repository that the lab's catalog has Grafana from."""
    made = Repository.make(tmp_path_factory.mktemp("packages") / "grafana")
    with made.served(str(deployed_once.layout.controller_address)) as url:
        source = (
            f'[source]\nuri = "{url}"\nkey_url = "{url}{KEY_FILE}"\n'
            f'key_fingerprint = "{made.fingerprint}"\n\n{PACKAGES}'
        )
        with deployed_once.edited(PROGRAM, PACKAGES, source):
            yield made


@pytest.fixture(scope="module")
def watched(deployed_once: Workspace, repository: Repository) -> Iterator[Watched]:
    lab = deployed_once
    store = lab.layout.keys / HOST
    (store / "alerts_ops").write_text(f"{SENT}\n")
    lab.on(HOST, f"systemd-run --unit=hook --quiet python3 -c {shlex.quote(RECEIVER)}")
    try:
        with (
            pace.applied(lab.path, TIMES),
            lab.edited(INVENTORY, PLACE, f'{PLACE}, "monitoring": {WATCHED!r}'),
            lab.edited(INVENTORY, ON_GPU, f"{ON_GPU}, {MEASURED}"),
        ):
            repository.publish(grafana(NOT_PINNED))
            refused = lab.deploy("--limit", HOST)
            assert refused.returncode != 0
            assert "Retrying" not in said(refused), "no source will have it in ten seconds"
            assert f"12.4.* is pinned, the host's package sources have versions {NOT_PINNED}" in (
                said(refused)
            )
            repository.publish(grafana(PINNED), grafana(NOT_PINNED))
            converge(lab, "--limit", HOST)
            found = Watched(lab)
            found.put_to_work()
            yield found
    finally:
        lab.try_on(HOST, "systemctl stop hook load")
        (store / "alerts_ops").unlink()
        converge(lab, "--limit", HOST)


def test_every_target_is_up(watched: Watched) -> None:
    targets = watched.prometheus.targets
    wait_for(lambda: set(targets().values()) == {"up"}, "targets are up")
    assert set(targets()) == {"corral-hosts", f"corral-servers-{HOST}"}
    done = watched.lab.corral("verify", HOST, "-i", INVENTORY)
    assert done.returncode == 0, said(done)
    assert "prometheus.service" in said(done)
    assert "2 of 2 are not down" in said(done)
    assert "refuses who has none" in said(done), "Grafana asks for a login"


def test_all_of_it_listens_on_loopback_alone(watched: Watched) -> None:
    listening = watched.on("ss --tcp --udp --listening --numeric --processes --no-header")
    ports = {":9090", ":9093", ":9100", ":3000"}
    own = [one for line in listening.splitlines() if (one := line.split())[4][-5:] in ports]
    assert len(own) == len(ports)
    assert len([line for line in listening.splitlines() if "prometheus" in line]) == 3
    assert {line[4].rpartition(":")[0] for line in own} == {"127.0.0.1"}


def test_its_keys_are_for_root_and_prometheus_and_open_metrics(watched: Watched) -> None:
    kept = watched.on(f"find {FOLDER}/secrets -type f -printf '%m %u %f\\n' | sort")
    assert kept.splitlines() == [f"600 root corral-servers-{HOST}", "600 root ops"]
    read = f"/run/credentials/prometheus.service/corral-servers-{HOST}"
    for user, readable in (("prometheus", True), ("nobody", False)):
        done = watched.lab.try_on(HOST, f"runuser -u {user} -- cat {read}")
        assert (done.returncode == 0) == readable
    for unit in ("prometheus-node-exporter", ALERTMANAGER):
        user = f"$(stat -c %u /proc/$(systemctl show {unit} -P MainPID))"
        as_it = f"setpriv --reuid={user} --clear-groups --no-new-privs"
        watched.on(f"{as_it} cat /proc/self/status >/dev/null")
        assert watched.lab.try_on(HOST, f"{as_it} cat {read}").returncode != 0, unit
    key = (watched.lab.layout.keys / HOST / "scrape_metrics").read_text().split()[-1]
    assert watched.on(f"cat {FOLDER}/secrets/prometheus/*") == key
    assert key != watched.token_of_instance()
    open_files = watched.on(f"cat $(find {FOLDER} -name '*.yml' -o -name '*.json')")
    assert key not in open_files
    assert SENT not in open_files


def test_a_lost_store_is_adopted_without_the_key_for_scraping_among_clients_keys(
    watched: Watched,
) -> None:
    names = (NAME, "scrape_metrics", "alerts_ops", "grafana_admin")
    files = [watched.lab.layout.keys / HOST / name for name in names]
    before = [keys_in(file.read_text()) for file in files]
    for file in files:
        file.unlink()
    done = watched.lab.corral("keys", "adopt", HOST, "-i", INVENTORY)
    assert done.returncode == 0, said(done)
    assert [keys_in(file.read_text()) for file in files] == before
    assert SENT not in said(done)


def test_a_second_deploy_changes_nothing(watched: Watched) -> None:
    look = f"systemctl show {PROMETHEUS} {ALERTMANAGER} corral-{NAME} --property=InvocationID"
    before = watched.on(look)
    done = watched.lab.deploy("-v", "--limit", HOST)
    assert done.returncode == 0, said(done)
    assert "monitored as planned" in said(done)
    assert watched.on(look) == before
    drift = watched.lab.corral("drift", HOST, "-i", INVENTORY)
    assert drift.returncode == 0, said(drift)


def test_grafana_shows_the_dashboards_to_who_has_the_password(watched: Watched) -> None:
    assert watched.grafana("/api/search", "a-wrong-passw0rd").startswith("401")
    code, text = watched.grafana("/api/search", watched.password()).split(" ", 1)
    assert code == "200"
    assert sorted(json.loads(text)) == sorted(one.name for one in DASHBOARDS)
    _, text = watched.grafana("/api/datasources", watched.password()).split(" ", 1)
    assert json.loads(text) == ["http://127.0.0.1:9090"]
    shown = watched.on("dpkg-query --show --showformat='${Version}' grafana")
    assert shown == PINNED, "another version is offered"
    files = watched.on("cat $(find /etc/corral/grafana -type f -not -path '*/secrets/*')")
    assert watched.password() not in files


def test_a_replaced_password_counts_and_the_old_one_does_not(watched: Watched) -> None:
    old = watched.password()
    done = watched.lab.corral("keys", "new", f"{HOST}/grafana_admin", "--replace", "-i", INVENTORY)
    assert done.returncode == 0, said(done)
    converge(watched.lab, "--limit", HOST)
    assert watched.password() != old
    assert watched.grafana("/api/search", watched.password()).startswith("200")
    assert watched.grafana("/api/search", old).startswith("401")


def test_every_query_of_the_dashboards_answers_under_load(watched: Watched) -> None:
    generated = QUERIES["corral-fleet: Tokens/s by model: {{alias}}"]
    working = f"({generated}) > 0"
    has = watched.prometheus.has
    wait_for(lambda: has(working), "tokens are counted")
    # What its timer does each day.
    watched.on("systemctl start corral_daily.service")
    watched.on(f"cp {PLAN} /run/plan.json && {planning_for_a_gpu(PLAN)}")
    try:
        watched.look_now()
        figures = ("corral_drift_rows", "corral_instance_vram_predicted_bytes")
        wait_for(lambda: all(map(has, figures)), "they have figures")
        found = dict(zip(QUERIES, watched.prometheus.answers(*QUERIES.values()), strict=True))
    finally:
        watched.on(f"cat /run/plan.json > {PLAN}")
    empty = {name for name, series in found.items() if not series}
    assert empty - {BASELINE} == {DOWN, ALERTS}


def test_alerts_fire_by_faults_reach_their_receiver_and_resolve(watched: Watched) -> None:
    """A server is stopped, and the driver is gone: both at once, as a rule waits for a while."""
    has, module = watched.prometheus.has, f"/{gpus.MODULE_FILE}"
    firing = (
        'ALERTS{alertname="CorralGpuErrors",alertstate="firing"}',
        f'ALERTS{{alertname="CorralDown",alertstate="firing",instance="{NAME}"}}',
    )
    assert not any(map(has, firing))
    watched.on(f"mv {module} {module}.gone && systemctl stop corral-{NAME}")
    try:
        watched.look_now()
        wait_for(lambda: all(map(has, firing)), "both fire")
        assert has(QUERIES[DOWN])
        assert has(QUERIES[ALERTS])
        wait_on(watched.lab, HOST, "grep -q CorralGpuErrors /run/hook", "it is sent")
    finally:
        watched.on(f"mv {module}.gone {module} && systemctl start corral-{NAME}")
    assert watched.on("head -1 /run/hook").startswith(f"Bearer {SENT} ")
    watched.look_now()
    wait_for(lambda: not any(map(has, firing)), "both resolve")


def test_what_leaves_the_inventory_is_removed(watched: Watched) -> None:
    # It ended by itself, if its server was stopped meanwhile.
    watched.lab.try_on(HOST, "systemctl stop load")
    with watched.lab.edited(INVENTORY, f', "monitoring": {WATCHED!r}', ""):
        converge(watched.lab, "--limit", HOST)
    units = f"{PROMETHEUS} {ALERTMANAGER} prometheus-node-exporter corral_metrics.timer {GRAFANA}"
    found = watched.lab.try_on(HOST, f"systemctl is-active {units}").stdout.split()
    assert found == ["inactive"] * 5
    left = "/etc/apt/*/corral-grafana* /etc/corral/grafana"
    assert watched.on(f"find {FOLDER} {left} -type f 2>/dev/null | wc -l") == "0"
    assert watched.on("systemctl list-unit-files --state=enabled | grep prometheus | wc -l") == "0"
