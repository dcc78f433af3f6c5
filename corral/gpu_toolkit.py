"""Which CUDA toolkit a GPU host builds with: the one that is there, or the pinned one."""

from __future__ import annotations

from dataclasses import dataclass

from corral import cuda
from corral.findings import Finding
from corral.gpu_case import Case


@dataclass(frozen=True)
class ToolkitNeed:
    """The release that builds will use; None where none is needed."""

    release: str | None = None
    install: bool = False
    findings: tuple[Finding, ...] = ()


def toolkit_need(case: Case) -> ToolkitNeed:
    """The toolkit on the host where it builds what is planned, else the pinned one."""
    if not case.setup.needs_toolkit:
        return ToolkitNeed()
    used = next((kit for kit in case.host.toolkits if kit.used), None)
    fault = _fault(case, used.version) if used else "no CUDA toolkit is installed"
    if used and not fault:
        return ToolkitNeed(release=used.version)
    if case.source is None:
        step = f"install one on the host, or add catalog/drivers/{case.system}.toml"
        return ToolkitNeed(findings=(Finding(what=fault, next_step=step),))
    if still := _fault(case, case.source.toolkit_release):
        step = f"pin another in catalog/drivers/{case.system}.toml"
        return ToolkitNeed(findings=(Finding(what=f"{fault}; the pinned {still}", next_step=step),))
    return ToolkitNeed(release=case.source.toolkit_release, install=True)


def _fault(case: Case, release: str | None) -> str:
    """Why a toolkit cannot build what is planned, or nothing."""
    if release is None:
        return "CUDA toolkit does not say its release"
    if not cuda.builds_for(release, case.gpus.compute_capability):
        least = cuda.minimum_toolkit(case.gpus.compute_capability)
        way = f"; that takes {least}" if cuda.key(least) > cuda.key(release) else " any more"
        return f"CUDA toolkit {release} does not build for {case.gpus.compute_capability}{way}"
    for engine in case.setup.engines:
        if not cuda.at_least(release, engine.minimum_toolkit):
            least = engine.minimum_toolkit
            return f"CUDA toolkit {release} is too old: {engine.release} needs {least}"
    return ""
