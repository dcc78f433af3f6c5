"""Stage: look before any change; a host with findings stops here, alone."""

from __future__ import annotations

import time

from pyinfra import host

from corral.findings import Finding
from corral.preflight.checks import preflight as findings_of
from corral.preflight.checks import wants_token
from corral.remote.root import not_root
from corral.sources.hub_token import operator_token
from deploys.target import Target
from operations import host as host_operations
from operations.messages import warn


def preflight(target: Target) -> None:
    """Report all findings of a host at once; advice does not stop it."""
    found = _findings(target)
    for advice in (finding for finding in found if not finding.stops):
        warn(f"[{host.name}] {advice.what}. Next: {advice.next_step}")
    findings = [finding for finding in found if finding.stops]
    host_operations.preflight(findings=findings, name="Preflight: no blocking findings")


def _findings(target: Target) -> list[Finding]:
    """Who is not root cannot tell the rest."""
    if not target.is_root:
        error = not_root(target.host, target.state.not_root)
        return [Finding(what=error.what, next_step=error.next_step)]
    has_token = wants_token(target.plan, target.state) and operator_token() is not None
    found = findings_of(
        target.plan,
        target.state,
        now_seconds=time.time(),
        rollout=target.host.options.rollout,
        allow_reboot=target.host.options.allow_reboot,
        has_token=has_token,
        prunes=target.prunes_weights,
        remove_orphans=target.host.options.remove_orphans,
        has_bundle=target.bundle is not None,
    )
    return [*found, *_of_bundle(target)]


def _of_bundle(target: Target) -> list[Finding]:
    if target.bundle is None:
        return []
    monitoring = target.state.monitoring
    packages = (target.state.missing_packages, monitoring.missing_packages, monitoring.programs)
    return target.bundle.findings(
        target.plan, target.missing_shards(), target.missing_builds(), packages=any(packages)
    )
