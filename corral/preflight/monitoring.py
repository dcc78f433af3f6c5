"""Findings about programs of the monitoring that no distribution has."""

from __future__ import annotations

from collections.abc import Iterator

from corral_shared.pins import fits

from corral.findings import Finding
from corral.host.state import HostState
from corral.plan.host import HostPlan


def program_findings(plan: HostPlan, state: HostState) -> Iterator[Finding]:
    """Programs that no package source of the host has in their pinned version."""
    for program in plan.monitoring.programs if plan.monitoring else ():
        found = state.monitoring.programs.get(program.package)
        if found is None or program.has_source:
            continue
        if any(fits(one, program.version) for one in found.offered):
            continue
        there = ", ".join(found.offered) or "no version of it"
        yield Finding(
            what=f"{program.package} {program.version} is pinned, the host's package sources have "
            f"{there}",
            next_step="add its publisher's repository with its key to /etc/apt/sources.list.d/ and "
            "run `apt-get update` on the host; or name it in [source] of a file of your own, "
            f"{program.catalog}; or pin another version there",
        )
