"""The plan of a host's Grafana, beside its Prometheus. Pure."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from corral.catalog.entries import Catalog
from corral.catalog.programs import ProgramSource
from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.inventory.monitoring import GrafanaSpec, PrometheusSpec
from corral.monitoring.grafana import CONFIGURATION, DATA, grafana_files
from corral.nvidia.apt import pin_text, sources_text
from corral.paths import HostPaths
from corral.plan.gateway import at
from corral.plan.monitoring import MonitoringPlan, PinnedProgram
from corral.store.gateway_keys import GRAFANA
from corral.templating import text_environment

_PROGRAM = "grafana"
_UNIT = "grafana-server.service"
_HOME = "/usr/share/grafana"
PASSWORD = "admin_password"  # noqa: S105 - the name of its file
_SOURCES = "/etc/apt/sources.list.d/corral-grafana.sources"
_KEYRING = "/etc/apt/keyrings/corral-grafana.asc"
_PREFERENCES = "/etc/apt/preferences.d/corral-grafana"
# Below 1000 apt does not go back: an older Grafana cannot read the database of a newer one.
_PRIORITY = 990


def with_grafana(
    plan: MonitoringPlan,
    host: Host,
    spec: GrafanaSpec,
    watched: PrometheusSpec,
    *,
    catalog: Catalog,
    paths: HostPaths,
    templates: Path,
) -> MonitoringPlan:
    """``plan`` with a Grafana that shows ``watched``. Raises CorralError without its version."""
    pinned = _pinned(catalog, host)
    folder, secret = paths.grafana, f"{paths.grafana_secrets}/{PASSWORD}"
    password_file = f"/run/credentials/{_UNIT}/{PASSWORD}"
    texts = grafana_files(
        folder,
        address=spec.address,
        port=spec.port,
        password_file=password_file,
        prometheus=f"http://{at(watched.address, watched.port)}",
    )
    values = {
        "host": host.name,
        "home": _HOME,
        "data": DATA,
        "configuration": f"{folder}/{CONFIGURATION}",
        "secret": secret,
        "password_file": password_file,
        "alone": all(
            ipaddress.ip_address(one).is_loopback for one in (spec.address, watched.address)
        ),
    }
    drop_in = text_environment(templates).get_template("grafana-server.conf.j2").render(**values)
    apt = {_PREFERENCES: pin_text(pinned.packages, _PRIORITY)}
    if pinned.source:
        apt[_SOURCES] = sources_text(pinned.source, _KEYRING)
    url = f"http://{at(spec.address, spec.port)}"
    return plan.model_copy(
        update={
            "programs": tuple(_programs(pinned)),
            "files": {
                **plan.files, **apt, **texts, f"{paths.units}/{_UNIT}.d/corral.conf": drop_in,
            },
            "secrets": {**plan.secrets, secret: f"{host.name}/{GRAFANA}"},
            "units": (*plan.units, _UNIT),
            "answers": {**plan.answers, _UNIT: f"{url}/api/health"},
            "closed": {**plan.closed, _UNIT: f"{url}/api/search"},
        }
    )  # fmt: skip


def _pinned(catalog: Catalog, host: Host) -> ProgramSource:
    found = catalog.programs.get(_PROGRAM)
    if found is None:
        where, step = f"{host.name}: monitoring.grafana", f"add catalog/programs/{_PROGRAM}.toml"
        raise CorralError(where, "the catalog does not say which version of Grafana", step)
    return found


def _programs(pinned: ProgramSource) -> list[PinnedProgram]:
    source = pinned.source
    return [
        PinnedProgram(
            package=name,
            version=pinned.packages.version,
            catalog=f"catalog/programs/{_PROGRAM}.toml",
            has_source=source is not None,
            key_url=source.key_url if source else None,
            key_fingerprint=source.key_fingerprint if source else None,
            keyring=_KEYRING,
        )
        for name in pinned.packages.packages
    ]
