"""Changes to a GPU host's driver and toolkit. Pure: compares a plan with the state of its host."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from corral.catalog.drivers import (
    MODULES_FILE,
    AptSource,
    DriverSource,
    EngineNeeds,
    GpuSetup,
    PinnedPackages,
)
from corral.catalog.entries import Catalog
from corral.findings import Finding
from corral.host.state import GpuHost, HostState
from corral.inventory.hosts import GpuSpec, HostSpec
from corral.nvidia import versions
from corral.nvidia.apt import installing_files, keeping_files
from corral.nvidia.driver import Case, driver_need, minimum
from corral.plan.host import HostPlan
from corral.plan.release import ReleasePlan
from corral.schema import Frozen


@dataclass(frozen=True)
class _ToolkitNeed:
    """Whether to install a CUDA toolkit.

    + release: the toolkit that planned releases are built with, on any host; None without one
    """

    release: str | None = None
    install: bool = False
    findings: tuple[Finding, ...] = ()


class GpuDecision(Frozen):
    """Changes to driver and toolkit; nothing to do where all is empty and False.

    + install: package sets for apt; + files: path -> text of files that differ
    + hold: installed packages that apt may still upgrade; + named: packages of the catalog
    + driver_changes: the driver will change, so nvidia-smi's current report does not count
    """

    install: tuple[PinnedPackages, ...] = ()
    source: AptSource | None = None
    files: dict[str, str] = {}
    hold: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    load_modules: bool = False
    persistence: bool = False
    driver_changes: bool = False
    findings: tuple[Finding, ...] = ()

    @property
    def prepares(self) -> bool:
        """Whether there is anything to do apart from a reboot."""
        changes = (self.install, self.files, self.hold, self.load_modules, self.persistence)
        return any(changes)


def gpu_setup(spec: HostSpec, catalog: Catalog, releases: Iterable[ReleasePlan]) -> GpuSetup | None:
    """The planned drivers of a host; None for one without GPUs."""
    if spec.gpus is None:
        return None
    built = [release for release in releases if release.backend == "cuda"]
    return GpuSetup(
        sources=_sources(spec.gpus, catalog),
        toolkit=next((kit for one in built if (kit := one.artifact.cuda_toolkit)), None),
        engines=tuple(_needs(catalog, release) for release in built),
    )


def _sources(gpus: GpuSpec, catalog: Catalog) -> dict[str, DriverSource]:
    """Driver sources with the kernel modules that drive these GPUs."""
    capability = gpus.compute_capability
    if capability is None or versions.open_modules_drive(capability):
        return dict(catalog.drivers)
    return {name: source.before_turing() for name, source in catalog.drivers.items()}


def decide(plan: HostPlan, state: HostState, *, allow_reboot: bool = False) -> GpuDecision:
    """The changes that a host needs to serve on its planned GPUs; none without GPUs.

    + allow_reboot: whether this run may reboot it
    """
    if plan.gpu_setup is None or plan.gpus is None:
        return GpuDecision()
    system = f"{state.os_id}-{state.os_version}"
    case = Case(
        plan=plan, setup=plan.gpu_setup, gpus=plan.gpus, host=state.gpu_host, system=system,
        source=plan.gpu_setup.sources.get(system), digests=state.gpu_host.files,
        allow_reboot=allow_reboot,
    )  # fmt: skip
    toolkit = _toolkit_need(case)
    driver = driver_need(case, minimum(case, toolkit.release))
    findings = (*toolkit.findings, *driver.findings)
    if findings:
        return GpuDecision(findings=findings)
    sets = [s for s, wanted in _sets(case, toolkit.install, driver.install) if wanted]
    return GpuDecision(
        install=tuple(sets),
        source=case.source.source if case.source and sets else None,
        files=_files(case, installing=bool(sets)),
        hold=tuple(name for name, pkg in case.host.driver.packages.items() if not pkg.held),
        named=case.source.packages if case.source else (),
        load_modules=driver.load or (bool(case.running) and not case.host.uvm_device),
        persistence=driver.load or not _persists(case.host),
        driver_changes=driver.install or driver.load or driver.reboot,
    )


def _toolkit_need(case: Case) -> _ToolkitNeed:
    """The planned toolkit is installed, can be installed, or needs the operator."""
    release = case.setup.toolkit
    installed = {kit.version for kit in case.host.toolkits if kit.version}
    if release is None or release in installed or not _builds(case):
        return _ToolkitNeed(release=release)
    if case.source and case.source.toolkit_release == release:
        return _ToolkitNeed(release=release, install=True)
    listed = f"only {', '.join(sorted(installed))}" if installed else "none"
    pinned = f"; {case.system} pins {case.source.toolkit_release}" if case.source else ""
    what = f"CUDA toolkit {release} is not installed, {listed} is{pinned}"
    steps = ["install it on the host", 'set "cuda_toolkit" of the host to an installed one']
    if case.source is None:
        steps.append(f"add catalog/drivers/{case.system}.toml")
    step = ", or ".join(steps)
    return _ToolkitNeed(findings=(Finding(what=what, next_step=step),))


def _builds(case: Case) -> bool:
    return any(release.artifact.cuda_toolkit for release in case.plan.builds)


def _sets(case: Case, toolkit: bool, driver: bool) -> list[tuple[PinnedPackages, bool]]:
    if case.source is None:
        return []
    return [(case.source.driver, driver), (case.source.toolkit, toolkit)]


def _files(case: Case, *, installing: bool) -> dict[str, str]:
    """Files that differ. Pins stay while any package of the catalog is installed."""
    wanted = keeping_files()
    ours = case.source and set(case.source.packages) & set(case.host.driver.packages)
    if case.source and (installing or ours):
        wanted |= installing_files(case.source, case.host.apt_sources)
    if case.host.uvm_at_boot and MODULES_FILE not in case.digests:
        wanted.pop(MODULES_FILE)
    return {p: t for p, t in wanted.items() if case.digests.get(p) != _digest(t)}


def _persists(host: GpuHost) -> bool:
    """Whether GPUs stay initialised without a client, now and after a boot."""
    service = host.persistenced == "absent" or host.persistenced_at_boot
    return service and all(gpu.persistence for gpu in host.gpus)


def _needs(catalog: Catalog, release: ReleasePlan) -> EngineNeeds:
    engine = catalog.engines[release.engine]
    return EngineNeeds(
        release=f"{release.engine} {release.key}",
        minimum_driver=engine.minimum_driver,
    )


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()
