"""Stage: distribution packages and the host helper."""

from __future__ import annotations

from deploys.target import Target
from operations import host as host_operations


def base(target: Target) -> None:
    """Install what builds, fetches and activates."""
    plan, state = target.plan, target.state
    host_operations.packages(
        missing=state.missing_packages, apt_files=target.apt_files,
        name="Base packages", _retries=3, _retry_delay=10,
    )  # fmt: skip
    host_operations.helper(
        path=plan.paths.helper,
        archive=target.helper,
        installed_sha256=state.helper_sha256,
        name="Host helper",
    )
    host_operations.kernel(recorded=state.kernel_recorded, plan=plan, name="Kernel command line")
    host_operations.modes(closed=state.closed, plan=plan, name="Modes")
