"""The files of a gateway's generation: configuration and secrets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from corral.inventory.hosts import Host
from corral.paths import HostPaths
from corral.plan.gateway import GatewayPlan, Pool, at
from corral.schema import Frozen
from corral.store.api_keys import entries_of
from corral.store.gateway_keys import (
    certificate,
    client_keys,
    client_name,
    metrics_keys,
    upstream_keys,
)
from corral.templating import text_environment

CONFIG, DROP_IN, UPSTREAM, METRICS, CERTIFICATE = (
    "haproxy.cfg",
    "haproxy.service.conf",
    "upstream",
    "metrics",
    "tls.pem",
)
NAMES = "names-"
# Request headers that the engines or HTTP need, in lower case. All others are dropped before a
# request is forwarded: llama.cpp resumes and replaces streams by X-Conversation-Id, both engines
# accept a key in X-Api-Key, and a later engine may read headers of its own.
_HEADERS: tuple[str, ...] = (
    "accept",
    "accept-encoding",
    "authorization",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "transfer-encoding",
    "user-agent",
)
# The first port without privileges, Linux's default.
_FREE_PORTS = 1024
# HAProxy's own errors: status, OpenAI's type of error, message.
_ERRORS = (
    (400, "invalid_request_error", "Malformed request."),
    (408, "invalid_request_error", "The request did not arrive in time."),
    (500, "server_error", "The gateway failed."),
    (502, "server_error", "The server failed before it answered."),
    (503, "server_error", "No server is available."),
    (504, "server_error", "The server did not answer in time."),
)


class GatewayFiles(Frozen):
    """One generation: its id, and file name -> text. Never print ``files``."""

    generation: str
    files: Mapping[str, str] = Field(repr=False)

    def __repr__(self) -> str:
        return f"GatewayFiles({self.generation})"

    __str__ = __repr__


def gateway_files(
    gateway: Host,
    plan: GatewayPlan,
    *,
    paths: HostPaths,
    templates: Path,
    shown: Mapping[str, str] | None = None,
) -> GatewayFiles:
    """All files of the planned generation; its id covers all of them, secrets included.

    + shown: pool -> the key to send to its servers, where it is not the first of its file
    Raises CorralError for an invalid key file or certificate.
    """
    others = _secrets(gateway, plan, shown or {}) | _names(gateway, plan)
    unnamed = _texts(gateway.name, plan, "", paths, templates, others) | others
    # The helper computes the same digest from the files (corral_host/gateway/generations.py).
    digest = hashlib.sha256(json.dumps(unnamed, sort_keys=True).encode()).hexdigest()[:16]
    named = _texts(gateway.name, plan, digest, paths, templates, others) | others
    return GatewayFiles(generation=digest, files=named)


def _secrets(gateway: Host, plan: GatewayPlan, shown: Mapping[str, str]) -> dict[str, str]:
    texts = {f"clients-{pool.name}": client_keys(gateway, pool).text for pool in plan.pools}
    first = {pool.name: upstream_keys(gateway, pool).first for pool in plan.pools}
    own = [f"{name} {shown.get(name, key)}\n" for name, key in first.items()]
    texts[UPSTREAM] = "".join(own)
    if plan.metrics_port:
        texts[METRICS] = metrics_keys(gateway).text
    if text := certificate(gateway):
        texts[CERTIFICATE] = text
    return texts


def _names(gateway: Host, plan: GatewayPlan) -> dict[str, str]:
    """For pools with named clients: digest of each key -> client, as HAProxy reads maps."""
    found = {}
    for pool in plan.pools:
        entries = [e for e in entries_of(gateway, client_name(pool)) if e.client]
        lines = [
            f"{hashlib.sha256(e.key.encode()).hexdigest().upper()} {e.client}" for e in entries
        ]
        if lines:
            found[f"{NAMES}{pool.name}"] = "".join(f"{line}\n" for line in lines)
    return found


def _texts(
    host: str,
    plan: GatewayPlan,
    generation: str,
    paths: HostPaths,
    templates: Path,
    others: Mapping[str, str],
) -> dict[str, str]:
    environment = text_environment(templates)
    folder = f"{plan.folder}/{generation}"
    config = environment.get_template("haproxy.cfg.j2").render(
        host=host,
        plan=plan,
        generation=generation,
        folder=folder,
        errors=_ERRORS,
        named=[pool.name for pool in plan.pools if f"{NAMES}{pool.name}" in others],
        headers=_HEADERS,
        error=_error,
        at=at,
        bind=lambda port: at(plan.address, port) + _tls(plan, folder),
        upstream=lambda pool: _upstream(pool, folder),
    )
    drop_in = environment.get_template("haproxy.service.conf.j2").render(
        host=host,
        folder=plan.folder,
        helper=paths.helper,
        low_port=any(port < _FREE_PORTS for port in plan.ports),
    )
    return {CONFIG: config, DROP_IN: drop_in}


def _error(message: str, kind: str, code: str | None = None) -> str:
    """An error in OpenAI's format."""
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


def _tls(plan: GatewayPlan, folder: str) -> str:
    return f" ssl crt {folder}/{CERTIFICATE} alpn h2,http/1.1" if plan.tls else ""


def _upstream(pool: Pool, folder: str) -> str:
    """The lookup of the key in a private file, so that the configuration has no secret."""
    return f"%[str({pool.name}),map_str({folder}/{UPSTREAM})]"
