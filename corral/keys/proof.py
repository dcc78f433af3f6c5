"""What the helper's ``check`` needs of the store: digests of keys with a salt, never the keys."""

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
    """A plan as ``check`` takes it, with what the store says of its keys. Raises CorralError.

    + hosts: all of its inventory; + gateways: their plans, by host
    """
    salt = secrets.token_hex(16)
    digests = {
        name: text and digest(salt, text)
        for name, text in _stored(host, plan, hosts, gateways).items()
    }
    document = json.loads(plan.to_helper())
    return json.dumps({**document, "keys": {"salt": salt, "digests": digests}})


def digest(salt: str, text: str) -> str:
    """As the helper makes it (files/corral_host/checks/keys.py)."""
    return hmac.new(salt.encode(), text.encode(), hashlib.sha256).hexdigest()


def _stored(
    host: Host, plan: HostPlan, hosts: Sequence[Host], gateways: Mapping[str, GatewayPlan]
) -> dict[str, str | None]:
    """Name -> text as it stands on the host; None where the store lacks it."""
    found: dict[str, str | None] = {}
    for instance in plan.instances:
        try:
            found[instance.name] = instance_keys(host, instance.name, hosts, gateways).text
        except LostKeysError:
            found[instance.name] = None
    for name in names(plan.gateway) if plan.gateway else ():
        keys = find_keys(host, name)
        # A gateway has one key of its own, the first.
        if keys and name.startswith(UPSTREAM):
            found[name] = f"{keys.first}\n"
        else:
            found[name] = keys.text if keys else None
    return found
