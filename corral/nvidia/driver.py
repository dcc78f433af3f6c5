"""The change that a GPU host's driver needs: install, replace, load, or none."""

from __future__ import annotations

from dataclasses import dataclass

from corral_shared.pins import fits

from corral.catalog.drivers import DriverSource, GpuSetup
from corral.findings import Finding
from corral.host.state import GpuHost
from corral.inventory.hosts import GpuSpec
from corral.nvidia import versions
from corral.nvidia.apt import own_source
from corral.plan.host import HostPlan

ALLOW_REBOOT = "run the same deploy with --data allow_reboot=true"


@dataclass(frozen=True)
class Case:
    """The inputs for one host; ``system``: such as debian-12; ``source``: its catalog entry."""

    plan: HostPlan
    setup: GpuSetup
    gpus: GpuSpec
    host: GpuHost
    system: str
    source: DriverSource | None
    digests: dict[str, str]
    allow_reboot: bool = False

    @property
    def running(self) -> str | None:
        """Version of the loaded kernel module."""
        listed = [gpu.driver_version for gpu in self.host.gpus if gpu.driver_version]
        return self.host.driver.module_version or next(iter(listed), None)

    @property
    def installed(self) -> str | None:
        """Version that will run after a reboot."""
        return self.host.driver.library_version or self.running


@dataclass(frozen=True)
class Minimum:
    """The minimum driver version, and what requires it."""

    version: str
    reason: str


def minimum(case: Case, toolkit: str | None) -> Minimum:
    """The highest minimum of the planned releases and the toolkit."""
    needs = [Minimum(e.minimum_driver, e.release) for e in case.setup.engines]
    if toolkit:
        needs.append(Minimum(versions.minimum_driver(toolkit), f"CUDA toolkit {toolkit}"))
    return max(needs, key=lambda need: versions.key(need.version), default=Minimum("0", ""))


@dataclass(frozen=True)
class DriverNeed:
    """The change; ``reboot``: the loaded kernel module is not the needed one."""

    install: bool = False
    load: bool = False
    reboot: bool = False
    findings: tuple[Finding, ...] = ()


def driver_need(case: Case, least: Minimum) -> DriverNeed:
    """Decide for a driver that is absent, too old, not loaded, not the running one, or fine."""
    if case.installed is None:
        return _absent(case, least)
    if not versions.at_least(case.installed, least.version):
        fault = f"driver {case.installed} is too old: {least.reason} needs {least.version}"
        return _upgrade(case, least, fault)
    if fault := _off_pin(case) or _wrong_modules(case):
        return _upgrade(case, least, fault)
    if case.host.failure == "mismatch" or _differs(case.host):
        return _replace(case)
    return DriverNeed(load=case.running is None)


def reboot_pending(host: GpuHost) -> bool:
    """Whether the installed driver is not the running one."""
    unloaded = host.driver.library_version is not None and host.driver.module_version is None
    return host.failure in ("mismatch", "no-driver") or unloaded or _differs(host)


def _absent(case: Case, least: Minimum) -> DriverNeed:
    """Install a driver; not without a GPU on the bus, as preflight reports missing GPUs."""
    if not case.host.pci_gpus:
        return DriverNeed()
    if missing := _source_fault(case, least, "no NVIDIA driver is installed"):
        return DriverNeed(findings=(missing,))
    return DriverNeed(install=True, load=True)


def _upgrade(case: Case, least: Minimum, fault: str) -> DriverNeed:
    if missing := _source_fault(case, least, fault):
        return DriverNeed(findings=(missing,))
    if not case.host.driver.packages:
        what = f"{fault}. It was not installed from packages"
        step = "remove it with its installer (nvidia-uninstall), then run the same deploy again"
        return DriverNeed(findings=(Finding(what=what, next_step=step),))
    if case.running is None:
        return DriverNeed(install=True, load=True)
    if not case.allow_reboot:
        what = f"{fault}. {case.plan.host} must reboot to replace it{_names_down(case.plan)}"
        return DriverNeed(findings=(Finding(what=what, next_step=ALLOW_REBOOT),))
    return DriverNeed(install=True, reboot=True)


def _replace(case: Case) -> DriverNeed:
    """The installed libraries do not match the loaded kernel module: reboot."""
    if case.allow_reboot:
        return DriverNeed(reboot=True)
    return DriverNeed(findings=(reboot_needed(case.plan, case.host),))


def reboot_needed(plan: HostPlan, host: GpuHost) -> Finding:
    """A finding that the host must reboot: why, and which instances will be down."""
    loaded = host.driver.module_version or "none"
    installed = host.driver.library_version or "another"
    what = f"reboot needed: the loaded NVIDIA module is {loaded}, the libraries are {installed}"
    return Finding(what=f"{what}{_names_down(plan)}", next_step=ALLOW_REBOOT)


def _source_fault(case: Case, least: Minimum, fault: str) -> Finding | None:
    """Why the catalog has no driver for this host, or None."""
    file = f"catalog/drivers/{case.system}.toml"
    if case.source is None:
        return Finding(what=fault, next_step=f"install one on the host, or add {file}")
    if no_repository := own_repository_fault(case, file):
        return no_repository
    pinned = case.source.driver.version
    if not versions.at_least(pinned, least.version):
        what = f"{fault}; {file} pins {pinned}, {least.reason} needs {least.version}"
        return Finding(what=what, next_step=f"pin a newer driver, or an older toolkit, in {file}")
    return None


def own_repository_fault(case: Case, file: str) -> Finding | None:
    """That the host has no repository of its own that could get the catalog's components."""
    source = case.source.source if case.source else None
    if source is None or source.uri or own_source(source, case.host.apt_sources):
        return None
    what = (
        f"no package source of the host has {source.suite} main, so {' '.join(source.components)} "
        "cannot be added to it"
    )
    step = f"add it to /etc/apt/sources.list.d/ on the host, or set uri and keyring in {file}"
    return Finding(what=what, next_step=step)


def _off_pin(case: Case) -> str:
    """A driver package that is installed in another version than its pin, as a sentence."""
    pinned = case.source.driver if case.source else None
    for name in pinned.packages if pinned else ():
        found = case.host.driver.packages.get(name)
        if pinned and found and not fits(found.version, pinned.version):
            return f"{name} {found.version} is installed, {pinned.version} is pinned"
    return ""


def _wrong_modules(case: Case) -> str:
    """That the host has the open kernel modules, which do not drive its GPUs, as a sentence."""
    capability = case.gpus.compute_capability
    if capability is None or versions.open_modules_drive(capability):
        return ""
    named = [name for name in case.host.driver.packages if "-open" in name]
    if not (named or case.host.driver.open_module):
        return ""
    found = ", ".join(named) or f"driver {case.running}"
    return (
        f"{found} has the open kernel modules, which drive no GPU of compute capability "
        f"{capability} (before Turing)"
    )


def _differs(host: GpuHost) -> bool:
    module, library = host.driver.module_version, host.driver.library_version
    return bool(module and library and not versions.same(module, library))


def _names_down(plan: HostPlan) -> str:
    names = ", ".join(instance.name for instance in plan.instances)
    return f"; {names} will be down meanwhile" if names else ""
