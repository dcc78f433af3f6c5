"""GPUs before a deploy: gone, sick, smaller than described, named by an instance but not there."""

from __future__ import annotations

from typing import Any

import pytest

from corral.host.state import GpuHost, Xid
from corral.plan.host import HostPlan
from corral.preflight.checks import preflight
from corral.preflight.gpus import gpu_findings
from tests.gpu_samples import bare_cards, gpu, gpu_plan, serving, toolkit
from tests.samples import CHAT, NOW_SECONDS, bare, plan


def findings(host: GpuHost, planned: HostPlan | None = None) -> list[str]:
    found = gpu_findings(planned or gpu_plan(), host)
    assert all(finding.next_step for finding in found)
    return [finding.what for finding in found]


def on(*gpus: int | str) -> HostPlan:
    """The plan with its instance on these GPUs."""
    planned = gpu_plan()
    (instance,) = planned.instances
    return planned.model_copy(update={"instances": (instance.model_copy(update={"gpus": gpus}),)})


def xid(code: int) -> Xid:
    return Xid(pci="0000:3b:00.0", code=code, time_seconds=NOW_SECONDS)


def test_healthy_gpus_are_fine() -> None:
    assert findings(serving()) == []


def test_a_host_without_gpus_is_not_looked_at() -> None:
    assert findings(serving(xids=(xid(79),)), plan(CHAT)) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gpus": (gpu(0, ecc_uncorrected=2), gpu(1))}, "GPU 0 (0000:3b:00.0): 2 uncorrectable"),
        (
            {"gpus": (gpu(0), gpu(1, problem="[GPU requires reset]"))},
            "reports [GPU requires reset]",
        ),
        ({"xids": (xid(48),)}, "GPU 0000:3b:00.0: Xid 48 since boot"),
        ({"xids": (xid(79), xid(79))}, "GPU 0000:3b:00.0: Xid 79 since boot"),
        ({"xids": (xid(94),)}, "Xid 94"),
        ({"xids": (xid(95),)}, "Xid 95"),
        ({"xids_unreadable": "not permitted"}, "the kernel log cannot be read for Xid errors: not"),
        ({"lost": ("0000:5e:00.0",), "problem": "Unknown Error"}, "GPU 0000:5e:00.0 is lost: Unk"),
        ({"gpus": (gpu(0), gpu(1, compute_capability="9.0"))}, "NVIDIA A100 (9.0)"),
    ],
)
def test_a_sick_or_missing_gpu_is_a_finding(changes: dict[str, Any], said: str) -> None:
    (what,) = findings(serving(**changes))
    assert said in what


def test_a_gpu_that_is_gone_is_told_with_who_planned_on_it() -> None:
    assert findings(serving(gpus=(gpu(0),))) == [
        "2 GPUs of compute capability 8.0 planned, nvidia-smi reports: NVIDIA A100 (8.0)",
        "chat: GPU 1 is missing; nvidia-smi shows 0 (GPU-0)",
    ]


@pytest.mark.parametrize("code", [13, 31, 43, 45])
def test_errors_of_programs_do_not_stop_a_host(code: int) -> None:
    assert findings(serving(xids=(xid(code),))) == []


def test_unknown_error_counters_are_no_errors() -> None:
    assert findings(serving(gpus=(gpu(0, ecc_uncorrected=None), gpu(1)))) == []


def test_a_gpu_smaller_than_described_is_a_finding() -> None:
    planned = gpu_plan()
    assert planned.gpus
    gpus = planned.gpus.model_copy(update={"memory_mib": 81920})
    (first, _) = findings(serving(), planned.model_copy(update={"gpus": gpus}))
    assert first == "GPU 0 has 40960 MiB, the inventory has 81920 MiB"
    rounded = planned.gpus.model_copy(update={"memory_mib": 42000})
    assert findings(serving(), planned.model_copy(update={"gpus": rounded})) == []


def test_gpus_are_named_by_index_or_by_uuid() -> None:
    assert findings(serving(), on(0)) == findings(serving(), on("GPU-1")) == []


@pytest.mark.parametrize("gone", [2, "GPU-2"])
def test_a_named_gpu_that_is_gone_is_a_finding(gone: int | str) -> None:
    (what,) = findings(serving(), on(gone))
    assert what == f"chat: GPU {gone} is missing; nvidia-smi shows 0 (GPU-0), 1 (GPU-1)"


def all_findings(host: GpuHost) -> list[str]:
    planned = gpu_plan()
    state = bare(planned, gpu_host=host)
    return [found.what for found in preflight(planned, state, now_seconds=NOW_SECONDS)]


def test_cards_without_a_driver_do_not_stop_a_host_that_gets_one() -> None:
    assert all_findings(bare_cards()) == []


def test_fewer_cards_than_planned_stop_it_before_a_driver_is_installed() -> None:
    assert all_findings(bare_cards(pci_gpus=("0000:3b:00.0",))) == [
        "2 GPUs planned, the PCI bus shows 1"
    ]


def test_no_card_at_all_is_told_with_what_was_looked_at() -> None:
    (what,) = all_findings(bare_cards(pci_gpus=(), toolkits=(toolkit("12.8"),)))
    assert (
        "nvidia-smi reports: nvidia-smi is not installed; the PCI bus shows no NVIDIA GPU" in what
    )


def test_a_needed_reboot_is_the_only_finding_while_nvidia_smi_cannot_answer() -> None:
    driver = serving().driver.model_copy(update={"library_version": "580.173.02"})
    host = serving(gpus=(), failure="mismatch", problem="mismatch", driver=driver)
    (what,) = all_findings(host)
    assert what.startswith("reboot needed")


@pytest.mark.parametrize(
    ("mode", "said", "step"),
    [
        ({"mig_mode": "Enabled"}, "GPU 1 is in MIG mode", "nvidia-smi -i 1 -mig 0"),
        ({"compute_mode": "Exclusive_Process"}, "compute mode Exclusive_Process", "-c DEFAULT"),
        ({"compute_mode": "Prohibited"}, "compute mode Prohibited", "-c DEFAULT"),
    ],
)
def test_a_gpu_that_is_not_one_for_several_processes_is_a_finding(
    mode: dict[str, Any], said: str, step: str
) -> None:
    there = serving(gpus=(gpu(0), gpu(1, **mode)))
    (found,) = gpu_findings(gpu_plan(), there)
    assert said in found.what
    assert step in found.next_step
    # Another GPU's mode is its own.
    assert findings(there, on(0)) == []
    assert len(findings(there, on("GPU-1"))) == 1


def test_the_usual_modes_are_fine() -> None:
    usual = {"mig_mode": "Disabled", "compute_mode": "Default"}
    assert findings(serving(gpus=(gpu(0, **usual), gpu(1, mig_mode=None)))) == []
