"""The configuration of Alertmanager: which receiver gets which alerts. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from corral.inventory.monitoring import AlertmanagerSpec, ReceiverSpec
from corral.monitoring.yaml_text import yaml_text

_BEGIN = "# Written by Corral. Secrets are in files of their own.\n"
# Alertmanager needs a receiver for alerts that nobody wants.
_NOBODY = "nobody"


def alertmanager_text(spec: AlertmanagerSpec, secret_of: Callable[[str], str]) -> str:
    """``secret_of``: receiver -> path of the file with its secret."""
    routes = [_route(name, one) for name, one in spec.receivers.items()]
    receivers = [_receiver(name, one, secret_of(name)) for name, one in spec.receivers.items()]
    document = {
        "route": {
            "receiver": _NOBODY,
            "group_by": ["alertname", "host"],
            "group_wait": "15s",
            "group_interval": "5m",
            "repeat_interval": "12h",
            "routes": routes,
        },
        "receivers": [{"name": _NOBODY}, *receivers],
    }
    return _BEGIN + yaml_text(document)


def _route(name: str, one: ReceiverSpec) -> dict[str, Any]:
    matched = {} if one.wants == "all" else {"matchers": [f'severity="{one.wants}"']}
    return {"receiver": f"to-{name}", **matched, "continue": True}


def _receiver(name: str, one: ReceiverSpec, secret: str) -> dict[str, Any]:
    if one.webhook_url:
        hook: dict[str, Any] = {"url": one.webhook_url}
        if one.with_token:
            hook["http_config"] = {"authorization": {"credentials_file": secret}}
        return {"name": f"to-{name}", "webhook_configs": [hook]}
    mail: dict[str, Any] = {
        "to": one.email_to,
        "from": one.email_from,
        "smarthost": one.smarthost,
        "send_resolved": True,
        "require_tls": True,
    }
    if one.username:
        mail |= {"auth_username": one.username, "auth_password_file": secret}
    return {"name": f"to-{name}", "email_configs": [mail]}
