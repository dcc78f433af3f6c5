"""Drivers and toolkits on real hosts, by real apt: installed, pinned, held, replaced, left alone.

The tests follow one bare host through its life, in this order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lab import gpus
from lab.descriptions import A100_40GB
from tests.lab.gpu_fleet import (
    CATALOG,
    KERNEL_LOG,
    NEW,
    NEWER,
    OLD,
    OTHER_BRANCH,
    PLAIN,
    READY,
    GpuFleet,
    gpu_fleet,
)
from tests.lab.observed import INSTANCES
from tests.lab.untouched import assert_refused, said
from tests.lab.workspace import Workspace

ALLOWED = ("--data", "allow_reboot=true")
BOOT = "systemctl show --property=UserspaceTimestamp --value"


@pytest.fixture(scope="module")
def fleet(bare_lab: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GpuFleet]:
    with gpu_fleet(bare_lab, tmp_path_factory.mktemp("apt") / "repository") as fleet:
        yield fleet


def test_a_key_that_is_not_the_pinned_one_installs_nothing(fleet: GpuFleet) -> None:
    fleet.publish(OLD, OTHER_BRANCH)
    with fleet.lab.edited(CATALOG, fleet.repository.fingerprint, "0" * 40):
        done = fleet.deploy("--limit", fleet.bare)
    assert_refused(done, f"holds the key {fleet.repository.fingerprint}, not {'0' * 40}")
    assert fleet.version() == ""


def test_a_pin_that_no_source_has_installs_nothing(fleet: GpuFleet) -> None:
    with fleet.lab.edited(CATALOG, '"580.*"', '"575.*"'):
        done = fleet.deploy("--limit", fleet.bare)
    assert_refused(done, "nvidia-open 575.* is pinned, the host's package sources have")
    assert fleet.version() == ""


def test_absent_driver_and_toolkit_are_installed_pinned_and_held(fleet: GpuFleet) -> None:
    done = fleet.deploy()
    assert done.returncode == 0, said(done)
    assert fleet.version() == f"{OLD}-1", "the other branch is younger, but not pinned"
    assert "release 12.8" in fleet.on("/usr/local/cuda/bin/nvcc --version")
    held = fleet.on("apt-mark showhold").split()
    assert held == ["cuda-toolkit-12-8", "libnvidia-ml1", "nvidia-open", "nvidia-persistenced"]
    listed = fleet.on("nvidia-smi --query-gpu=persistence_mode --format=csv,noheader,nounits")
    assert listed == "Enabled"
    assert fleet.on("systemctl is-enabled nvidia-persistenced") == "enabled"
    assert fleet.on("cat /etc/modules-load.d/corral-nvidia.conf") == "nvidia-uvm"
    assert '"^nvidia-"' in fleet.on("apt-config dump Unattended-Upgrade::Package-Blacklist")


def test_a_host_without_gpus_skips_the_stage_with_a_word(fleet: GpuFleet) -> None:
    done = fleet.deploy("-v", "--limit", PLAIN)
    assert done.returncode == 0, said(done)
    assert "no GPUs in the inventory" in said(done)
    assert fleet.lab.on(PLAIN, "ls /etc/apt/preferences.d") == ""


def test_a_driver_that_no_package_brought_is_left_as_it_is(fleet: GpuFleet) -> None:
    assert fleet.lab.try_on(READY, "dpkg-query --show nvidia-open").returncode != 0
    smi = "nvidia-smi --query-gpu=driver_version --format=csv,noheader,nounits"
    assert fleet.lab.on(READY, smi) == A100_40GB.driver_version
    assert fleet.lab.on(READY, "cat /etc/modules-load.d/corral-nvidia.conf") == "nvidia-uvm"


def test_a_second_run_changes_nothing(fleet: GpuFleet) -> None:
    before = fleet.on(BOOT)
    done = fleet.deploy("-v")
    assert done.returncode == 0, said(done)
    assert said(done).count("driver and toolkit are as planned") >= 2
    assert "drivers: " not in said(done), "no job ran"
    assert fleet.on(BOOT) == before


def test_upgrades_leave_the_driver_alone(fleet: GpuFleet) -> None:
    fleet.publish(OLD, NEW, OTHER_BRANCH)
    fleet.on("apt-get -qq update && apt-get -qq -y upgrade && apt-get -qq -y dist-upgrade")
    assert fleet.version() == f"{OLD}-1"
    policy = fleet.on("apt-cache policy nvidia-open")
    assert f"Candidate: {NEW}-1" in policy, "only the hold kept it"


def test_another_pinned_driver_waits_for_leave_to_reboot(fleet: GpuFleet) -> None:
    with fleet.lab.edited(CATALOG, '"580.*"', '"580.105.*"'):
        done = fleet.deploy("--limit", fleet.bare)
        words = f"nvidia-open {OLD}-1 is installed, 580.105.* is pinned", "tiny-gpu will be down"
        assert_refused(done, *words, "--data allow_reboot=true")
        assert fleet.version() == f"{OLD}-1"
        before = fleet.on(BOOT)
        allowed = fleet.deploy(*ALLOWED, "--limit", fleet.bare)
    assert allowed.returncode == 0, said(allowed)
    assert fleet.on(BOOT) != before
    assert (fleet.version(), fleet.module()) == (f"{NEW}-1", NEW)
    assert "nvidia-open" in fleet.on("apt-mark showhold").split()
    assert "is back after" in said(allowed)


def test_a_library_that_is_not_the_modules_needs_a_reboot(fleet: GpuFleet) -> None:
    fleet.publish(NEWER)
    names = ("libnvidia-ml1", "nvidia-open", "nvidia-persistenced")
    packages = " ".join(f"{name}={NEWER}-1" for name in names)
    upgrade = f"apt-get -qq -y --allow-change-held-packages install {packages}"
    fleet.on(f"apt-get -qq update && {upgrade}")
    done = fleet.deploy("--limit", fleet.bare)
    says = f"reboot needed: the loaded NVIDIA module is {NEW}, the libraries are {NEWER}"
    assert_refused(done, says, "--data allow_reboot=true")
    assert fleet.module() == NEW
    allowed = fleet.deploy(*ALLOWED, "--limit", fleet.bare)
    assert allowed.returncode == 0, said(allowed)
    assert fleet.module() == NEWER


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            f"echo '9.0 lab kernel: NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.' "
            f">> {KERNEL_LOG}",
            "GPU 0000:3b:00.0: Xid 79 since boot",
        ),
        (
            "sed -i '/uncorrected/s/: 0/: 3/' /etc/corral-lab/gpus.json",
            "GPU 0 (0000:3b:00.0): 3 uncorrectable memory errors",
        ),
    ],
    ids=["xid", "ecc"],
)
def test_a_sick_gpu_stops_its_host_alone(fleet: GpuFleet, script: str, words: str) -> None:
    kept = "cp -r /etc/corral-lab /root/kept"
    fleet.on(f"{kept} && {script}")
    done = fleet.deploy("-v")
    fleet.on("cp -r /root/kept/. /etc/corral-lab && rm -r /root/kept")
    assert_refused(done, f"[{fleet.bare}] {words}")
    assert f"[{READY}] GPU" not in said(done)
    assert f"[{PLAIN}] noop: no GPUs in the inventory" in said(done)


@contextmanager
def newer_library(lab: Workspace, host: str) -> Iterator[None]:
    """A library newer than the module, as an upgrade leaves it; the next boot loads its module."""
    version = "580.170.01"
    library = "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so"
    load = f"sed -i s/{A100_40GB.driver_version}/{version}/ /{gpus.MODULE_FILE}"
    unit = f"[Service]\\nType=oneshot\\nExecStart={load}\\n[Install]\\nWantedBy=multi-user.target"
    lab.on(host, f"touch {library}.{version} && ln -s {library}.{version} {library}.1")
    lab.on(host, f"printf '{unit}\\n' > /etc/systemd/system/load.service; systemctl enable load")
    try:
        yield
    finally:
        back = f"sed -i s/{version}/{A100_40GB.driver_version}/ /{gpus.MODULE_FILE}"
        remove = f"rm {library}.1 {library}.{version} /etc/systemd/system/load.service"
        lab.on(host, f"systemctl disable load; {remove}; {back}")


def test_a_whole_deploy_reboots_its_host_and_goes_on_to_the_end(deployed_once: Workspace) -> None:
    lab = deployed_once
    before = lab.on(READY, BOOT)
    with newer_library(lab, READY):
        refused = lab.deploy("--limit", READY)
        assert_refused(refused, "reboot needed", "tiny-gpu, tiny-socket will be down meanwhile")
        assert lab.on(READY, BOOT) == before
        done = lab.deploy("-v", *ALLOWED, "--limit", READY)
        assert done.returncode == 0, said(done)
        assert lab.on(READY, BOOT) != before
        assert "all planned GPUs answer" in said(done)
    assert "checks passed" in said(done)
    assert all(lab.pid(READY, name) for host, name in INSTANCES if host == READY)
