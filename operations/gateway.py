"""Gateways: HAProxy's configuration with its keys, as one generation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from pyinfra import host
from pyinfra.api import operation
from pyinfra.api.command import FunctionCommand, QuoteString, StringCommand
from pyinfra.api.host import Host as PyinfraHost
from pyinfra.api.state import State

from corral.errors import CorralError
from corral.gateway import control
from corral.gateway.change import change
from corral.gateway.files import GatewayFiles
from corral.inventory.hosts import Host
from corral.plan.host import HostPlan
from operations import Commands, job
from operations.current_operator import CurrentOperator, operator_document


@operation()
def generation(
    plan: HostPlan, *, waiting: GatewayFiles | None, operator: CurrentOperator | None = None
) -> Commands:
    """Put the planned generation beside the one that runs; HAProxy has to find it valid.

    + waiting: its files, which travel on standard input only; None where it runs;
    + operator: the current operator.
    """
    if waiting is None:
        host.noop("no gateway, or it runs as planned")
        return
    document = {
        "folder": plan.paths.gateway,
        "generation": waiting.generation,
        "files": dict(waiting.files),
        **operator_document(operator),
    }
    yield StringCommand(
        "python3",
        "-I",
        QuoteString(plan.paths.helper),
        "gateway-stage",
        _stdin=json.dumps(document),
    )


@operation()
def switch(
    plan: HostPlan, *, waiting: bool, of: Host, settled: Callable[[str], bool], templates: Path
) -> Commands:
    """Switch to the planned generation; the host reverts one whose aliases do not answer.

    + waiting: whether another one runs; + of: the host, as Corral reads it
    + settled: whether HOST/INSTANCE serves its plan, asked once all that change have changed
    """
    if not waiting or plan.gateway is None:
        host.noop("no gateway, or it runs as planned")
        return
    yield FunctionCommand(_switch, (plan, of, settled, templates), {})


def _switch(
    state: State,  # noqa: ARG001 - pyinfra's
    host: PyinfraHost,
    plan: HostPlan,
    of: Host,
    settled: Callable[[str], bool],
    templates: Path,
) -> bool:
    reached = job.reached(of, host)
    if plan.gateway is None:
        return True
    try:
        found = change(reached, plan.gateway, settled, paths=plan.paths, templates=templates)
        if found:
            control.install(reached, found.plan, found.files)
    except CorralError as error:
        job.report(host, str(error).splitlines())
        return False
    for line in found.changes if found else ():
        job.print_line(host, f"gateway: {line}")
    return True
