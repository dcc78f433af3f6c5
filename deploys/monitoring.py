"""Stage: monitoring, on hosts with `"monitoring"` in their data."""

from __future__ import annotations

from corral.store.scrape_secrets import changed_secrets
from deploys.target import Target
from operations import monitoring as monitoring_operations


def monitoring(target: Target) -> None:
    """Bring what monitors this host to its plan."""
    state, secrets = target.state.monitoring, target.monitoring_secrets
    changed = [f"secret {path}" for path in changed_secrets(secrets, state.secrets)]
    monitoring_operations.monitoring(
        plan=target.plan,
        differs=[*state.differs, *changed],
        missing=state.missing_packages,
        programs=tuple(state.programs),
        secrets=secrets,
        apt_files=target.apt_files,
        name="Monitoring",
        _retries=3,
        _retry_delay=10,
    )
