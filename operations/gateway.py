"""Gateways: HAProxy's configuration with its keys, as one generation."""

from __future__ import annotations

import json

from pyinfra import host
from pyinfra.api import operation
from pyinfra.api.command import QuoteString, StringCommand

from corral.gateway.files import GatewayFiles
from corral.plan import HostPlan
from operations import Commands


@operation()
def generation(plan: HostPlan, *, waiting: GatewayFiles | None) -> Commands:
    """Switch the gateway to its planned generation; HAProxy has to find it valid first.

    + waiting: its files, which travel on standard input only; None where they are in place.
    """
    if waiting is None:
        host.noop("no gateway, or it runs as planned")
        return
    document = {
        "folder": plan.paths.gateway,
        "units": plan.paths.units,
        "generation": waiting.generation,
        "files": dict(waiting.files),
    }
    yield StringCommand(
        "python3",
        "-I",
        QuoteString(plan.paths.helper),
        "gateway-install",
        _stdin=json.dumps(document),
    )
