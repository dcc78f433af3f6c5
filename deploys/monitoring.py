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
        # For lists of packages that a mirror is writing. What a pinned program lacks does not come
        # by itself: a version that no source has, a key with another fingerprint.
        _retries=0 if state.programs else 3,
        _retry_delay=10,
    )
