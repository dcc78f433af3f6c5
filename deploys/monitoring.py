"""Stage: monitoring, on hosts with `"monitoring"` in their data."""

from __future__ import annotations

from deploys.target import Target
from operations import monitoring as monitoring_operations


def monitoring(target: Target) -> None:
    """Bring what monitors this host to its plan."""
    state = target.state.monitoring
    monitoring_operations.monitoring(
        plan=target.plan,
        differs=state.differs,
        missing=state.missing_packages,
        name="Monitoring",
        _retries=3,
        _retry_delay=10,
    )
