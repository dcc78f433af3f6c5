"""GPU hosts for tests: plans with drivers to install, and what a host may show of its own."""

from __future__ import annotations

from typing import Any

from corral.catalog.drivers import AptSource, DriverSource, EngineNeeds, GpuSetup, PinnedPackages
from corral.host.state import Driver, Gpu, GpuHost, Package, Toolkit
from corral.nvidia.decision import GpuDecision, decide
from corral.plan.host import HostPlan
from tests.samples import CHAT, GPU, bare, plan

VERSION = "580.159.04"
SOURCE = DriverSource(
    source=AptSource(uri="https://apt.example.com/", key_url="https://apt.example.com/k.asc",
                     key_fingerprint="A1" * 20),
    driver=PinnedPackages(packages=("nvidia-open",), version="580.*", pins=("src:*nvidia*:any",)),
    toolkit=PinnedPackages(packages=("cuda-toolkit-12-8",), version="12.8.*"),
    toolkit_release="12.8",
)  # fmt: skip
SYSTEM = "debian-12"
OLD = "535.183.01"


def gpu(index: int = 0, **changes: Any) -> Gpu:
    """A healthy A100; ``changes`` are fields of Gpu."""
    fields: dict[str, Any] = {
        "index": index,
        "name": "NVIDIA A100",
        "uuid": f"GPU-{index}",
        "pci": f"0000:{0x3B + index:02x}:00.0",
        "driver_version": VERSION,
        "persistence": True,
        "memory_total_mib": 40960,
        "memory_free_mib": 40442,
        "compute_capability": "8.0",
        "ecc_uncorrected": 0,
    }
    return Gpu(**{**fields, **changes})


def serving(**changes: Any) -> GpuHost:
    """Two healthy GPUs under a driver of the catalog, held, with its toolkit."""
    names = ("nvidia-open", "cuda-toolkit-12-8")
    versions = (f"{VERSION}-1", "12.8.1-1")
    fields: dict[str, Any] = {
        "gpus": (gpu(0), gpu(1)),
        "failure": "",
        "pci_gpus": ("0000:3b:00.0", "0000:3c:00.0"),
        "driver": Driver(
            module_version=VERSION,
            library_version=VERSION,
            packages={
                name: Package(version=version, held=True)
                for name, version in zip(names, versions, strict=True)
            },
        ),
        "toolkits": (toolkit("12.8"),),
        "uvm_device": True,
        "uvm_at_boot": True,
        "persistenced": "active",
        "persistenced_at_boot": True,
    }
    return GpuHost(**{**fields, **changes})


def bare_cards(**changes: Any) -> GpuHost:
    """Two cards in their slots and no driver."""
    slots = ("0000:3b:00.0", "0000:3c:00.0")
    return GpuHost(**{"pci_gpus": slots, "problem": "nvidia-smi is not installed", **changes})


def toolkit(version: str | None) -> Toolkit:
    """The one that builds use."""
    return Toolkit(path=f"/usr/local/cuda-{version}/bin/nvcc", version=version, used=True)


def gpu_plan(*, needs: EngineNeeds | None = None, **sources: DriverSource | None) -> HostPlan:
    """A host with two A100 that builds for CUDA; ``debian_12=None``: the catalog has no entry."""
    given = {name.replace("_", "-"): source for name, source in sources.items()}
    known = {name: source for name, source in {SYSTEM: SOURCE, **given}.items() if source}
    setup = GpuSetup(
        sources=known,
        toolkit="12.8",
        engines=(needs or EngineNeeds(release="llama.cpp c0c0"),),
    )
    planned = plan(CHAT, gpus=GPU)
    return planned.model_copy(update={"gpu_setup": setup, "builds": planned.releases})


def driver(module: str | None, library: str | None, **packages: str) -> Driver:
    """A driver whose packages are held; ``nvidia_open="535.183.01-1"``."""
    named = {name.replace("_", "-"): version for name, version in packages.items()}
    return Driver(
        module_version=module,
        library_version=library,
        packages={name: Package(version=v, held=True) for name, v in named.items()},
    )


def old_driver(**changes: Any) -> GpuHost:
    """Two GPUs under a packaged driver that is too old for the toolkit."""
    listed = (gpu(0, driver_version=OLD), gpu(1, driver_version=OLD))
    found = driver(OLD, OLD, nvidia_open=f"{OLD}-1")
    return serving(**{"gpus": listed, "driver": found, **changes})


def decided(
    host: GpuHost, planned: HostPlan | None = None, *, allow_reboot: bool = False, **changes: Any
) -> GpuDecision:
    """What is decided about a host, with ``changes`` to the rest of its state."""
    asked = planned or gpu_plan()
    return decide(asked, bare(asked, gpu_host=host, **changes), allow_reboot=allow_reboot)


def finding(decision: GpuDecision) -> tuple[str, str]:
    """The only one, with which nothing else is decided."""
    (found,) = decision.findings
    assert decision == GpuDecision(findings=(found,))
    return found.what, found.next_step
