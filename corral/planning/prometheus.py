"""The plan of a host's Prometheus and Alertmanager, for the whole inventory. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from corral.catalog.entries import Catalog
from corral.engines import engine_module
from corral.inventory.hosts import Host
from corral.inventory.monitoring import AlertmanagerSpec, PrometheusSpec
from corral.lock.lock_file import instance_profile, resolve_instance
from corral.monitoring.alertmanager import alertmanager_text
from corral.monitoring.files import RULES, configuration, rules_text, target_lists
from corral.monitoring.scrape import Server, Target
from corral.paths import HOST_PATHS, HostPaths
from corral.plan.gateway import at
from corral.plan.instance import Endpoint
from corral.plan.monitoring import MonitoringPlan
from corral.planning.clients import is_open
from corral.store.alert_secrets import secret_name
from corral.templating import text_environment

PROMETHEUS, ALERTMANAGER = "prometheus", "prometheus-alertmanager"
_UNITS = {name: f"{name}.service" for name in (PROMETHEUS, ALERTMANAGER)}
_HEALTHY = "/-/healthy"
# An alert that has no time to hold is seen as soon as the scrape that shows it.
_TIMES = {"scrape_interval": "15s", "evaluation_interval": "15s"}


def servers(host: Host, catalog: Catalog) -> tuple[Server, ...]:
    """The instances of a host, as far as scraping them goes. Raises CorralError."""
    found = []
    for spec in host.spec.instances:
        where = f"{host.name}/{spec.name}"
        engine, model, _ = resolve_instance(spec, catalog, where=where, inventory=host.origin)
        profile = instance_profile(spec, catalog, where=where, inventory=host.origin).profile
        kind = catalog.engine(engine, where=where).kind
        end = Endpoint(address=spec.address, port=spec.port)
        if profile.listen == "unix":
            name = engine_module(kind).socket_name
            end = Endpoint(socket=f"{HOST_PATHS.sockets}/corral-{spec.name}/{name}")
        keyless = bool(engine_module(kind).routes.keyless)
        found.append(
            Server(
                name=spec.name,
                kind=kind,
                alias=profile.alias or model,
                end=end,
                has_metrics=profile.metrics,
                keyless=keyless and is_open(end),
            )
        )
    return tuple(found)


def with_prometheus(
    plan: MonitoringPlan,
    host: Host,
    spec: PrometheusSpec,
    targets: Sequence[Target],
    *,
    paths: HostPaths,
    templates: Path,
) -> MonitoringPlan:
    """``plan`` with a Prometheus that scrapes ``targets``, and its Alertmanager."""
    manager, folder, kept = spec.alertmanager, paths.prometheus, paths.prometheus_secrets
    secrets = {
        f"{kept(PROMETHEUS)}/{one.job}": f"{one.host}/{one.key}" for one in targets if one.key
    }
    texts = {
        f"{folder}/prometheus.yml": configuration(
            targets,
            lambda one: _read_at(PROMETHEUS, one.job),
            own=_own(manager),
            times=_TIMES,
        ),
        f"{folder}/{RULES}": rules_text(),
        **{f"{folder}/{path}": text for path, text in target_lists(targets).items()},
    }
    units, answers = [PROMETHEUS], {_UNITS[PROMETHEUS]: _healthy(spec.address, spec.port)}
    if manager:
        units.append(ALERTMANAGER)
        answers[_UNITS[ALERTMANAGER]] = _healthy(manager.address, manager.port)
        secrets |= {
            f"{kept(ALERTMANAGER)}/{name}": f"{host.name}/{secret_name(name)}"
            for name, one in manager.receivers.items()
            if one.has_secret
        }
        texts[f"{folder}/alertmanager.yml"] = alertmanager_text(
            manager, lambda name: _read_at(ALERTMANAGER, name)
        )
    render = text_environment(templates)
    for name in units:
        values = {
            "host": host.name,
            "folder": folder,
            "spec": spec if name == PROMETHEUS else manager,
            "listen": _listen(spec if name == PROMETHEUS else manager),
            "credentials": {
                PurePosixPath(path).name: path
                for path in sorted(secrets)
                if path.startswith(f"{kept(name)}/")
            },
        }
        text = render.get_template(f"{name}.conf.j2").render(**values)
        texts[f"{paths.units}/{_UNITS[name]}.d/corral.conf"] = text
    return plan.model_copy(
        update={
            "packages": (*plan.packages, *units),
            "files": {**plan.files, **texts},
            "secrets": secrets,
            # What alerts are sent to starts first.
            "units": (*plan.units, *(_UNITS[name] for name in reversed(units))),
            "answers": answers,
            "targets": f"http://{at(spec.address, spec.port)}/api/v1/targets?state=active",
        }
    )


def _own(manager: AlertmanagerSpec | None) -> dict[str, Any]:
    rules = {"rule_files": [RULES]}
    if manager is None:
        return rules
    address = at(manager.address, manager.port)
    managers = [{"static_configs": [{"targets": [address]}]}]
    return {**rules, "alerting": {"alertmanagers": managers}}


def _listen(spec: PrometheusSpec | AlertmanagerSpec | None) -> str:
    return at(spec.address, spec.port) if spec else ""


def _healthy(address: str, port: int) -> str:
    return f"http://{at(address, port)}{_HEALTHY}"


def _read_at(unit: str, name: str) -> str:
    """Where the unit reads it: LoadCredential= puts it there."""
    return f"/run/credentials/{_UNITS[unit]}/{name}"
