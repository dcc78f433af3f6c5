"""Stage: look before any change; a host with findings stops here, alone."""

from __future__ import annotations

import time

from corral.preflight import preflight as findings_of
from deploys.target import Target
from operations import host as host_operations


def preflight(target: Target) -> None:
    """Report all findings of a host at once."""
    findings = findings_of(target.plan, target.state, now_seconds=time.time())
    host_operations.preflight(findings=findings, name="Preflight: nothing stands against a deploy")
