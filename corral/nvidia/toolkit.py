"""The CUDA toolkit of a GPU host: a host that builds for CUDA has the planned one."""

from __future__ import annotations

from dataclasses import dataclass

from corral.findings import Finding
from corral.nvidia.case import Case


@dataclass(frozen=True)
class ToolkitNeed:
    """The release that planned releases are built with, here or elsewhere; None without any."""

    release: str | None = None
    install: bool = False
    findings: tuple[Finding, ...] = ()


def toolkit_need(case: Case) -> ToolkitNeed:
    """Whether the planned toolkit is there, can be installed, or needs a person."""
    release = case.setup.toolkit
    there = {kit.version for kit in case.host.toolkits if kit.version}
    if release is None or release in there or not _builds(case):
        return ToolkitNeed(release=release)
    if case.source and case.source.toolkit_release == release:
        return ToolkitNeed(release=release, install=True)
    found = f"only {', '.join(sorted(there))}" if there else "none"
    pinned = f"; {case.system} pins {case.source.toolkit_release}" if case.source else ""
    what = f"CUDA toolkit {release} is not there, {found} is{pinned}"
    ways = ["install it on the host", 'name one that is there as "cuda_toolkit" of the host']
    if case.source is None:
        ways.append(f"add catalog/drivers/{case.system}.toml")
    step = ", or ".join(ways)
    return ToolkitNeed(findings=(Finding(what=what, next_step=step),))


def _builds(case: Case) -> bool:
    return any(release.backend == "cuda" for release in case.plan.builds)
