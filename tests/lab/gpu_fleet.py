"""GPU hosts of a lab with a package repository of their own, deployed as far as their drivers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab import gpus, nvidia_packages
from lab.descriptions import A100_40GB
from lab.package_repository import KEY_FILE, Repository
from tests.lab.extra_host import extra_host
from tests.lab.workspace import Done, Workspace

INVENTORY = "inventories/gpu.py"
STAGES = "gpu_only.py"
CATALOG = "catalog/drivers/debian-12.toml"
PLAIN, READY = "lab-1", "lab-3"
OLD, NEW, NEWER, OTHER_BRANCH = "580.95.05", "580.105.08", "580.119.02", "590.48.01"
KERNEL_LOG = "/etc/corral-lab/kernel.log"

_STAGES = """
from deploys.gpu import gpu
from deploys.preflight import preflight
from deploys.target import current_target
from operations import host

target = current_target()
preflight(target)
host.helper(
    path=target.plan.paths.helper, archive=target.helper,
    installed_sha256=target.state.helper_sha256, name="Host helper",
)
gpu(target)
"""
# lab-1 has no GPUs; lab-3 has a driver that no package brought; the bare one builds with CUDA.
_INVENTORY = """
from lab.hosts import connection_data, hosts_up
from lab.layout import this_lab

_lab = this_lab()
_GPU = {"name": "NVIDIA A100-PCIE-40GB", "count": 1, "compute_capability": "8.0"}
_ROLES = {1: {}, 3: {"gpus": _GPU, "backend": "cpu"}}
_BARE = {"gpus": _GPU, "backend": "cuda"}
_ON_GPU = {"instances": [{"name": "tiny-gpu", "profile": "tiny-chat", "port": 8001}]}


def _host(n):
    shared = {"hub_url": _lab.hub_url, "keys_folder": str(_lab.keys)}
    role = _ROLES[n] if n in _ROLES else {**_BARE, **_ON_GPU}
    return _lab.host_name(n), {**connection_data(_lab, n), **shared, **role}


_up = [int(name.removeprefix("lab-")) for name in hosts_up(_lab)]
servers = [_host(n) for n in _up if n in (1, 3, 4)]
"""


@dataclass(frozen=True)
class GpuFleet:
    """GPU hosts. ``bare``: one that has a card and no driver at first."""

    lab: Workspace
    repository: Repository
    bare: str

    def deploy(self, *arguments: str) -> Done:
        """Deploy preflight, helper and drivers."""
        return self.lab.deploy(*arguments, inventory=INVENTORY, stages=STAGES)

    def on(self, script: str) -> str:
        """Output of a script on the bare host."""
        return self.lab.on(self.bare, script)

    def version(self, package: str = "nvidia-open") -> str:
        """Installed version of a package; empty if it is not installed."""
        show = f"dpkg-query --show --showformat='${{Version}}' {package}"
        return self.lab.try_on(self.bare, show).stdout

    def module(self) -> str:
        """The loaded module, as the kernel reports it."""
        return self.on(f"grep --only-matching '[0-9]*[.][0-9.]*' /{gpus.MODULE_FILE}")

    def publish(self, *versions: str) -> None:
        """Publish drivers of these versions, and the toolkit."""
        drivers = [package for version in versions for package in nvidia_packages.driver(version)]
        self.repository.publish(*drivers, nvidia_packages.toolkit("12.8"))


@contextmanager
def gpu_fleet(lab: Workspace, folder: Path) -> Iterator[GpuFleet]:
    """lab-1 without GPUs, lab-3 with a driver, and lab-4 with a card and no driver."""
    repository = Repository.make(folder)
    with ExitStack() as stack:
        url = stack.enter_context(repository.served(str(lab.layout.controller_address)))
        bare = stack.enter_context(extra_host(lab, 4))
        stack.enter_context(_written(lab.path / STAGES, _STAGES))
        stack.enter_context(_written(lab.path / INVENTORY, _INVENTORY))
        catalog = offered_by(url, repository, (lab.path / CATALOG).read_text())
        stack.enter_context(_written(lab.path / CATALOG, catalog))
        insert_card(lab, bare)
        yield GpuFleet(lab, repository, bare)


def offered_by(url: str, repository: Repository, catalog: str) -> str:
    """The real entry, with the lab's repository in place of NVIDIA's."""
    ours = {
        "uri": url,
        "key_url": f"{url}{KEY_FILE}",
        "key_fingerprint": repository.fingerprint,
    }
    lines = []
    for line in catalog.splitlines():
        name = line.partition(" = ")[0]
        lines.append(f'{name} = "{ours[name]}"' if name in ours else line)
    return "\n".join(lines) + "\n"


@contextmanager
def _written(path: Path, text: str) -> Iterator[None]:
    before = path.read_text() if path.exists() else None
    path.write_text(text)
    try:
        yield
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_text(before)


def insert_card(lab: Workspace, host: str) -> None:
    """Give a host a card, without a driver."""
    lab.on(host, gpus.writing(gpus.cards((A100_40GB,))))
