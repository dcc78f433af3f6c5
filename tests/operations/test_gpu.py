"""GPU hosts in a deploy: what the stage sends, when a host reboots, and what stops it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.command import FunctionCommand, PyinfraCommand

from corral.catalog.drivers import KEYRING_FILE
from corral.host.state import Driver, GpuHost
from corral.nvidia.decision import GpuDecision, decide
from corral.plan.host import HostPlan
from operations import gpu
from operations.job import follow
from tests.gpu_samples import VERSION, bare_cards, gpu_plan, serving
from tests.gpu_samples import gpu as card
from tests.operations.fakes import asked, commands, prepared, stdin, text
from tests.operations.fleet import Fleet, bare_host, failed, steps
from tests.samples import EXAMPLES, GPU, bare

PLANNED = gpu_plan()
HELPER = PLANNED.paths.helper
MISMATCH = serving(driver=Driver(module_version="535.183.01", library_version=VERSION))


def test_a_missing_driver_is_installed_as_one_job() -> None:
    decision = decide(PLANNED, bare(PLANNED, gpu_host=bare_cards()))
    with prepared():
        start, wait = commands(gpu.drivers, PLANNED, decision=decision)
    assert text(start).splitlines()[0] == f"python3 -I {HELPER} start drivers"
    job = json.loads(stdin(start))
    assert job["kind"] == "drivers"
    assert job["spec"]["keyring"] == KEYRING_FILE
    assert [one["version"] for one in job["spec"]["install"]] == ["580.*", "12.8.*"]
    assert job["spec"]["source"]["key_fingerprint"] == "A1" * 20
    assert job["spec"]["named"] == ["nvidia-open", "cuda-toolkit-12-8"]
    assert isinstance(wait, FunctionCommand)
    assert (wait.function, wait.args) == (follow, (HELPER, "drivers"))


def executed(operation: Any, plan: HostPlan, host: GpuHost | None, *, changes: bool = True,
             **asked_for: bool) -> tuple[list[PyinfraCommand], list[str]]:  # fmt: skip
    """Commands that an operation yields while a deploy runs, and those that it runs itself."""
    answer: Any = {"success": False} if host is None else host.model_dump_json()
    with prepared({" gpus": answer}) as fake:
        fake.state.is_executing = True
        return commands(operation, plan, driver_changes=changes, **asked_for), asked(fake)


@pytest.mark.parametrize("operation", [gpu.restart, gpu.ready])
def test_a_host_whose_driver_did_not_change_is_not_asked(operation: Any) -> None:
    assert executed(operation, PLANNED, MISMATCH, changes=False) == ([], [])


@pytest.mark.parametrize("operation", [gpu.restart, gpu.ready])
def test_before_the_driver_changes_nobody_asks(operation: Any) -> None:
    with prepared() as fake:
        assert commands(operation, PLANNED, driver_changes=True) == []
        assert asked(fake) == []


def test_a_host_whose_new_driver_runs_does_not_reboot() -> None:
    assert executed(gpu.restart, PLANNED, serving(), allow_reboot=True)[0] == []


def test_a_host_whose_new_driver_does_not_run_reboots_where_it_may() -> None:
    ((command,), _) = executed(gpu.restart, PLANNED, MISMATCH, allow_reboot=True)
    assert "_reboot" in text(command)
    assert "loaded NVIDIA module is 535.183.01" in text(command)
    assert "chat will be down meanwhile" in text(command)


def test_a_host_that_may_not_reboot_stops_and_says_so() -> None:
    ((command,), _) = executed(gpu.restart, PLANNED, MISMATCH)
    assert "_report" in text(command)
    assert "reboot needed" in text(command)
    assert "--data allow_reboot=true" in text(command)


def test_gpus_that_answer_under_the_new_driver_are_fine() -> None:
    found, questions = executed(gpu.ready, PLANNED, serving())
    assert found == []
    assert len(questions) == 1


@pytest.mark.parametrize(
    ("host", "said"),
    [
        (serving(gpus=(card(0), card(1, ecc_uncorrected=1))), "1 uncorrectable"),
        (
            serving(gpus=(), failure="no-driver", problem="no module"),
            "nvidia-smi reports: no module",
        ),
    ],
)
def test_gpus_that_do_not_answer_rightly_stop_their_host(host: GpuHost, said: str) -> None:
    ((command,), _) = executed(gpu.ready, PLANNED, host)
    assert said in text(command)


def test_gpus_that_cannot_be_asked_for_are_not_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a fact fails while a deploy runs, pyinfra returns its default and goes on."""
    monkeypatch.setattr(gpu, "_changed", lambda *_: None)
    ((command,), _) = executed(gpu.ready, PLANNED, serving())
    assert "could not be asked" in text(command)


class GpuFleet(Fleet):
    """Hosts with two GPUs that build for the processor."""

    def data(self) -> dict[str, Any]:
        return {**super().data(), "gpus": GPU, "backend": "cpu"}


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GpuFleet:
    monkeypatch.chdir(EXAMPLES)
    return GpuFleet(tmp_path / "keys", tmp_path / "archives")


def test_the_driver_comes_before_anything_that_takes_long(fleet: GpuFleet) -> None:
    answer = serving().model_dump_json()
    fleet.add("bare", bare_host(fleet, "bare", gpu_host=bare_cards()), gpus=answer)
    deployed = fleet.deploy()
    assert failed(deployed) == set()
    assert steps(deployed, "bare")[:5] == [
        *("start drivers", "poll drivers", "gpus", "gpus", "start build-llama.cpp"),
    ]


def test_a_sick_gpu_stops_its_host_and_the_first_wave(fleet: GpuFleet) -> None:
    sick = serving(gpus=(card(0), card(1, ecc_uncorrected=1)))
    fleet.add("sick", bare_host(fleet, "sick", gpu_host=sick))
    fleet.add("good", bare_host(fleet, "good", gpu_host=serving()))
    deployed = fleet.deploy()
    assert failed(deployed) == {"sick"}
    assert steps(deployed, "sick") == []
    assert steps(deployed, "good")[-3:] == ["stage", "stage", "reserve"]


def test_a_host_without_gpus_gets_no_driver_whatever_was_decided() -> None:
    planned = PLANNED.model_copy(update={"gpus": None})
    with prepared():
        decision = GpuDecision(load_modules=True)
        assert commands(gpu.drivers, planned, decision=decision) == []
