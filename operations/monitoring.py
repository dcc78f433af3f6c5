"""Monitoring: node_exporter with the timer that writes figures, Prometheus, Alertmanager."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from pyinfra import host
from pyinfra.api import operation
from pyinfra.api.command import QuoteString, StringCommand

from corral.offline.deploy import AptFiles
from corral.plan.host import HostPlan
from operations import Commands
from operations.host import packages

NO_SECRETS: Mapping[str, str] = MappingProxyType({})


@operation()
def monitoring(
    plan: HostPlan,
    *,
    differs: Sequence[str],
    missing: Sequence[str],
    programs: Sequence[str] = (),
    secrets: Mapping[str, str] = NO_SECRETS,
    apt_files: AptFiles | None = None,
) -> Commands:
    """Put the planned monitoring in place, or remove what the inventory no longer has.

    + differs: what the host lacks of it; + missing: packages of it that are not installed
    + programs: pinned packages that are not installed in their version
    + secrets: path -> text; they travel on standard input only
    + apt_files: of a bundle as the only source of packages
    """
    if not differs:
        host.noop("monitored as planned" if plan.monitoring else "not monitored")
        return
    helper = QuoteString(plan.paths.helper)
    document = plan.to_helper()
    if plan.monitoring is None:
        yield StringCommand("python3", "-I", helper, "monitor-stop", _stdin=document)
        return
    config = {"apt_config": apt_files.config if apt_files else None}
    whole = json.dumps({**json.loads(document), **config, "secret_texts": dict(secrets)})
    yield StringCommand("python3", "-I", helper, "monitor-write", _stdin=whole)
    if programs:
        pinned = json.dumps({**json.loads(document), **config})
        yield StringCommand("python3", "-I", helper, "monitor-programs", _stdin=pinned)
    if missing:
        yield from packages._inner(missing=list(missing), apt_files=apt_files)
    yield StringCommand("python3", "-I", helper, "monitor-start", _stdin=document)
