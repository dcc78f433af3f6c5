"""What a GPU host gets: driver and toolkit absent, right, too old, off their pin, not loaded."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest

from corral.catalog.drivers import (
    MODULES_FILE,
    PREFERENCES_FILE,
    SOURCES_FILE,
    UPGRADES_FILE,
    DriverSource,
    EngineNeeds,
    PinnedPackages,
)
from corral.catalog.entries import load_catalog
from corral.host.state import Driver, GpuHost, Package
from corral.nvidia.apt import installing_files, keeping_files
from corral.nvidia.decision import GpuDecision, decide, gpu_setup
from corral.nvidia.driver import ALLOW_REBOOT, reboot_pending
from corral.plan.host import HostPlan
from tests.gpu_samples import (
    OLD,
    SOURCE,
    SYSTEM,
    VERSION,
    bare_cards,
    decided,
    driver,
    finding,
    gpu,
    gpu_plan,
    old_driver,
    serving,
    toolkit,
)
from tests.samples import CHAT, EXAMPLES, bare, catalog, host, plan

WRITTEN = {
    path: sha256(text.encode()).hexdigest()
    for path, text in {**keeping_files(), **installing_files(SOURCE)}.items()
}


def test_a_host_without_gpus_needs_nothing() -> None:
    planned = plan(CHAT)
    assert planned.gpu_setup is None
    assert decide(planned, bare(planned)) == GpuDecision()


def test_a_host_with_everything_in_place_needs_nothing() -> None:
    decision = decided(serving(files=WRITTEN))
    assert not decision.prepares
    assert not decision.driver_changes
    assert decision.findings == ()


def test_an_absent_driver_and_toolkit_are_installed_from_the_pinned_source() -> None:
    decision = decided(bare_cards())
    assert decision.install == (SOURCE.driver, SOURCE.toolkit)
    assert decision.source == SOURCE.source
    assert set(decision.files) == {SOURCES_FILE, PREFERENCES_FILE, UPGRADES_FILE, MODULES_FILE}
    assert decision.named == ("nvidia-open", "cuda-toolkit-12-8")
    assert decision.load_modules
    assert decision.persistence
    assert decision.driver_changes


def test_without_a_card_in_the_bus_no_driver_is_installed() -> None:
    decision = decided(GpuHost(toolkits=(toolkit("12.8"),)))
    assert decision.install == ()
    assert not decision.driver_changes


def test_a_driver_too_old_for_the_toolkit_waits_for_leave_to_reboot() -> None:
    what, step = finding(decided(old_driver()))
    assert what == (
        f"driver {OLD} is too old: CUDA toolkit 12.8 needs 570.26. "
        "lab-1 must reboot to replace it; chat will be down meanwhile"
    )
    assert step == ALLOW_REBOOT


def test_with_leave_a_driver_too_old_is_replaced() -> None:
    decision = decided(old_driver(), allow_reboot=True)
    assert decision.install == (SOURCE.driver,)
    assert decision.driver_changes
    assert not decision.load_modules


def test_a_driver_too_old_for_the_pinned_release_is_told_with_its_release() -> None:
    planned = gpu_plan(needs=EngineNeeds(release="vllm 1", minimum_driver="580.160"))
    what, _ = finding(decided(serving(), planned))
    assert f"driver {VERSION} is too old: vllm 1 needs 580.160" in what


def test_a_driver_too_old_that_does_not_run_is_replaced_without_asking() -> None:
    host = old_driver(gpus=(), failure="no-driver", driver=driver(None, OLD, nvidia_open=OLD))
    decision = decided(host)
    assert decision.install == (SOURCE.driver,)
    assert decision.load_modules


def test_a_driver_too_old_that_no_package_brought_is_the_operators() -> None:
    what, step = finding(decided(old_driver(driver=driver(OLD, OLD))))
    assert "was not installed from packages" in what
    assert "nvidia-uninstall" in step


def test_a_catalog_whose_driver_is_too_old_is_a_finding() -> None:
    pinned = SOURCE.driver.model_copy(update={"version": "550.*"})
    planned = gpu_plan(debian_12=SOURCE.model_copy(update={"driver": pinned}))
    for there in (bare_cards(), old_driver()):
        what, step = finding(decided(there, planned))
        assert "pins 550.*, CUDA toolkit 12.8 needs 570.26" in what
        assert "pin a newer driver" in step


def test_a_driver_off_its_pin_is_brought_back() -> None:
    pinned = SOURCE.driver.model_copy(update={"version": "575.57.08-1"})
    source: DriverSource = SOURCE.model_copy(update={"driver": pinned})
    what, _ = finding(decided(serving(), gpu_plan(debian_12=source)))
    assert f"nvidia-open {VERSION}-1 is installed, 575.57.08-1 is pinned" in what
    allowed = decided(serving(), gpu_plan(debian_12=source), allow_reboot=True)
    assert allowed.install == (pinned,)


def test_an_epoch_is_no_part_of_a_pin() -> None:
    installed = driver(VERSION, VERSION, nvidia_open=f"1:{VERSION}-1")
    assert decided(serving(driver=installed, files=WRITTEN)).findings == ()


MISMATCHED = [
    serving(gpus=(), failure="mismatch", driver=driver(VERSION, "580.173.02")),
    serving(driver=driver(VERSION, "580.173.02")),
    serving(gpus=(), failure="mismatch", driver=driver(VERSION, None)),
]


@pytest.mark.parametrize("host", MISMATCHED)
def test_a_library_that_is_not_the_modules_needs_a_reboot(host: GpuHost) -> None:
    assert reboot_pending(host)
    what, step = finding(decided(host))
    assert what.startswith(f"reboot needed: the loaded NVIDIA module is {VERSION}, the libraries")
    assert "chat will be down meanwhile" in what
    assert step == ALLOW_REBOOT
    allowed = decided(host, allow_reboot=True)
    assert allowed.driver_changes
    assert allowed.install == ()


def test_a_library_told_in_short_is_the_same() -> None:
    host = serving(driver=driver("550.90.07", "550.90", nvidia_open="550.90.07-1"))
    assert not reboot_pending(host)


def test_an_installed_driver_that_is_not_loaded_is_loaded() -> None:
    host = serving(gpus=(), failure="no-driver", driver=driver(None, VERSION))
    decision = decided(host)
    assert decision.load_modules
    assert decision.driver_changes
    assert decision.install == ()
    assert reboot_pending(host)


def test_a_missing_uvm_device_is_made() -> None:
    decision = decided(serving(uvm_device=False))
    assert decision.load_modules
    assert not decision.driver_changes


def test_uvm_is_loaded_at_boot_by_one_file_only() -> None:
    assert MODULES_FILE in decided(serving(uvm_at_boot=False)).files
    assert MODULES_FILE not in decided(serving(uvm_at_boot=True)).files


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, False),
        ({"persistenced_at_boot": False}, True),
        ({"persistenced": "absent", "persistenced_at_boot": False}, False),
        ({"gpus": (gpu(0), gpu(1, persistence=False))}, True),
    ],
)
def test_gpus_persist_now_and_after_the_next_boot(changes: dict[str, Any], wanted: bool) -> None:
    assert decided(serving(**changes)).persistence is wanted


def test_what_apt_may_upgrade_is_held() -> None:
    loose = {"libnvidia-ml1": Package(version=VERSION, held=False)}
    found = Driver(module_version=VERSION, library_version=VERSION, packages=loose)
    decision = decided(serving(driver=found, files=WRITTEN))
    assert decision.hold == ("libnvidia-ml1",)
    assert decision.prepares


def test_a_changed_file_is_written_again() -> None:
    digests = {**WRITTEN, PREFERENCES_FILE: "0" * 64}
    assert set(decided(serving(files=digests)).files) == {PREFERENCES_FILE}


def test_a_driver_from_elsewhere_is_kept_but_gets_no_pins() -> None:
    decision = decided(serving(driver=driver(VERSION, VERSION)))
    assert decision.install == ()
    assert set(decision.files) == {UPGRADES_FILE}


def test_a_distribution_that_the_catalog_does_not_know_must_bring_its_own() -> None:
    planned = gpu_plan(debian_12=None)
    assert decided(serving(), planned).findings == ()
    found = decided(bare_cards(), planned).findings
    assert [f.what for f in found] == [
        "CUDA toolkit 12.8 is not installed, none is",
        "no NVIDIA driver is installed",
    ]
    assert all("catalog/drivers/debian-12.toml" in f.next_step for f in found)


V100 = {"name": "Tesla V100-PCIE-32GB", "count": 2, "compute_capability": "7.0"}
PROPRIETARY = PinnedPackages(packages=("cuda-drivers",), version="580.*")


def volta() -> HostPlan:
    """A host with GPUs before Turing."""
    source = SOURCE.model_copy(update={"proprietary": PROPRIETARY})
    kept = catalog().model_copy(update={"drivers": {SYSTEM: source}})
    planned = plan(CHAT, gpus=V100)
    setup = gpu_setup(host(CHAT, gpus=V100).spec, kept, ())
    return planned.model_copy(update={"gpu_setup": setup})


def test_gpus_before_turing_get_the_proprietary_modules() -> None:
    assert decided(bare_cards(), volta()).install == (PROPRIETARY,)
    assert decided(bare_cards()).install[0] == SOURCE.driver


@pytest.mark.parametrize(
    ("found", "who"),
    [
        (driver(None, VERSION, nvidia_open=f"{VERSION}-1"), "nvidia-open"),
        (driver(None, VERSION, nvidia_driver_580_server_open=VERSION), "server-open"),
        (driver(VERSION, VERSION, other="1").model_copy(update={"open_module": True}), "driver"),
    ],
)
def test_the_open_modules_of_such_a_host_are_replaced(found: Driver, who: str) -> None:
    there = serving(driver=found, gpus=(), failure="no-driver")
    assert decided(there, volta(), allow_reboot=True).install == (PROPRIETARY,)
    if found.module_version:
        what, _ = finding(decided(there, volta()))
        assert who in what
        assert "drive no GPU of compute capability 7.0" in what
    assert decided(there).install == ()


@pytest.mark.parametrize("name", ["debian-12", "ubuntu-22.04", "ubuntu-24.04"])
def test_every_shipped_entry_with_open_modules_has_others_for_a_v100(name: str) -> None:
    setup = gpu_setup(host(CHAT, gpus=V100).spec, load_catalog(EXAMPLES / "catalog"), ())
    assert setup
    assert not [one for one in setup.sources[name].driver.packages if "open" in one]
