"""Monitoring: node_exporter and the timer that writes figures of GPUs and instances."""

from __future__ import annotations

from collections.abc import Sequence

from pyinfra import host
from pyinfra.api import operation
from pyinfra.api.command import QuoteString, StringCommand

from corral.plan.host import HostPlan
from operations import Commands
from operations.host import packages


@operation()
def monitoring(plan: HostPlan, *, differs: Sequence[str], missing: Sequence[str]) -> Commands:
    """Put the planned monitoring in place, or remove what the inventory no longer has.

    + differs: what the host lacks of it; + missing: packages of it that are not installed
    """
    if not differs:
        host.noop("monitored as planned" if plan.monitoring else "not monitored")
        return
    helper = QuoteString(plan.paths.helper)
    document = plan.to_helper()
    if plan.monitoring is None:
        yield StringCommand("python3", "-I", helper, "monitor-stop", _stdin=document)
        return
    yield StringCommand("python3", "-I", helper, "monitor-write", _stdin=document)
    if missing:
        yield from packages._inner(missing=list(missing))
    yield StringCommand("python3", "-I", helper, "monitor-start", _stdin=document)
