"""Salted digests of stored keys for the helper's ``check``; never the keys."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping, Sequence

from corral.inventory.hosts import Host
from corral.plan.gateway import GatewayPlan
from corral.plan.host import HostPlan
from corral.planning.gateways import instance_keys
from corral.store.api_keys import LostKeysError, find_keys
from corral.store.gateway_keys import UPSTREAM, names


def check_document(
    host: Host, plan: HostPlan, hosts: Sequence[Host], gateways: Mapping[str, GatewayPlan]
) -> str:
    """The input of the helper's ``check``: a plan, and digests of its keys. Raises CorralError.

    + hosts: all hosts of its inventory; + gateways: host -> gateway plan
    """
    salt = secrets.token_hex(16)
    digests = {
        name: text and digest(salt, text)
        for name, text in _stored(host, plan, hosts, gateways).items()
    }
    document = json.loads(plan.to_helper())
    return json.dumps({**document, "keys": {"salt": salt, "digests": digests}})


def digest(salt: str, text: str) -> str:
    """The digest of a key file, as the helper computes it (files/corral_host/checks/keys.py)."""
    return hmac.new(salt.encode(), text.encode(), hashlib.sha256).hexdigest()


def _stored(
    host: Host, plan: HostPlan, hosts: Sequence[Host], gateways: Mapping[str, GatewayPlan]
) -> dict[str, str | None]:
    """Name -> text of the file on the host; None where the store lacks it."""
    texts: dict[str, str | None] = {}
    for instance in plan.instances:
        try:
            texts[instance.name] = instance_keys(host, instance.name, hosts, gateways).text
        except LostKeysError:
            texts[instance.name] = None
    for name in names(plan.gateway) if plan.gateway else ():
        keys = find_keys(host, name)
        # A gateway sends one key of its own, the first.
        if keys and name.startswith(UPSTREAM):
            texts[name] = f"{keys.first}\n"
        else:
            texts[name] = keys.text if keys else None
    return texts
