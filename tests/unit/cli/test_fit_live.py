"""`corral fit --host`: what the host itself says is free now. And VRAM in `corral status`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from corral.cli.views.instances import Standing, status_table
from corral.host.answers import ObservedInstance
from corral.host.state import GpuHost, GpuProcess
from corral.inventory.hosts import Host
from corral.plan.host import HostPlan
from corral.plan.placement import DeviceNeed, InstanceNeed
from corral.terminal import show
from tests.gpu_samples import gpu, serving
from tests.samples import CHAT, GPU, LONG, ROOT, plan
from tests.unit.cli.test_cli import assert_one_message
from tests.unit.fake_client import travelling
from tests.unit.fit_project import Fit, ModelHub
from tests.unit.helper_modules import helper_module

AIR = ("glm-4.5-air", "--profile", "glm-4.5-air-realtime")
Z1 = ("glm-z1-32b-0414", "--profile", "glm-z1-32b")
SITE = """
spec = {"name": "NVIDIA A100", "count": 2, "compute_capability": "8.0"}
air = {"name": "air", "profile": "glm-4.5-air-realtime", "port": 8001, "gpus": [1]}
servers = [("gpu-01", {"gpus": spec, "instances": [air]}), ("cpu-01", {"instances": []})]
"""


@pytest.fixture
def fit(fit: Fit) -> Fit:
    fit.inventory(SITE)
    return fit


class Hosts:
    """In place of ssh: each host's answer, and what they were asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        memory = {"total_mib": 131072}
        self.answers = {
            "gpu-01": serving(gpus=(gpu(0), half_taken()), processes=PROCESSES, memory=memory),
            "cpu-01": serving(gpus=(), memory={"total_mib": 65536}),
        }

    def call(self, host: Host, command: str, plan_json: str, _shape: object) -> Any:
        self.asked.append((host.name, command, plan_json))
        return self.answers[host.name]


def half_taken(**changes: Any) -> Any:
    return gpu(1, **{"memory_free_mib": 40960 - 640 - 20000, **changes})


def held(unit: str, used_mib: int | None, on: str = "GPU-1") -> GpuProcess:
    return GpuProcess(gpu=on, pid=1, program="llama-server", unit=unit, used_mib=used_mib)


PROCESSES = (held("corral-air.service", 15000), held("", 5000))


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Hosts:
    found = Hosts()
    monkeypatch.setattr("corral.cli.fit.travelling_helper", travelling(found.call))
    return found


def test_a_host_is_asked_once_for_its_gpus(fit: Fit, hosts: Hosts) -> None:
    rows = fit.json(*Z1, "--host", "gpu-01").rows
    assert hosts.asked == [("gpu-01", "gpus", "{}")]
    assert [row.device for row in rows] == ["GPU 0", "GPU 1", "host"]
    assert [row.others_mib for row in rows] == [0, 20000, 0]
    assert [row.memory_mib for row in rows] == [40960, 40960, 131072]


@pytest.mark.usefixtures("hosts")
def test_what_an_instance_of_the_same_profile_holds_counts_as_free(fit: Fit) -> None:
    found = fit.json(*AIR, "--host", "gpu-01")
    assert [row.others_mib for row in found.rows] == [0, 5000, 0]
    assert found.fits


@pytest.mark.usefixtures("hosts")
def test_what_the_others_hold_is_in_the_bar(fit: Fit) -> None:
    said = fit(*Z1, "--host", "gpu-01")
    bars = [line for line in said.out.splitlines() if line.startswith("GPU") and "█" in line]
    assert [bar.split("  ")[1].count("░") for bar in bars] == [0, 24]


@pytest.mark.usefixtures("hosts")
def test_what_fits_is_listed_for_a_host_too(fit: Fit) -> None:
    said = fit("glm-z1-32b-0414", "--host", "gpu-01")
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[1].split()[2:5] == ["f16", "32,768", "all"]


@pytest.mark.usefixtures("hosts")
def test_a_host_without_gpus_is_a_place_too(fit: Fit) -> None:
    words = ("glm-z1-32b-0414", "--profile", "glm-z1-32b-cpu", "--host", "cpu-01")
    rows = fit.json(*words).rows
    assert [(row.device, row.memory_mib) for row in rows] == [("host", 65536)]
    assert "Nothing on GPUs." in fit(*words).out


@pytest.mark.usefixtures("hosts")
def test_the_hub_of_the_host_is_asked_where_none_is_named(
    fit: Fit, models: ModelHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cold"))
    fit.inventory(SITE.replace('"gpus": spec', f'"hub_url": "{models.running.url}/", "gpus": spec'))
    before = len(models.running.log.getvalue())
    assert fit.corral("fit", *Z1, "--host", "gpu-01").code == 0
    assert "THUDM_GLM-Z1-32B" in models.running.log.getvalue()[before:]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (serving(gpus=(), problem="NVRM: no device"), "gpu-01: NVRM: no device"),
        (serving(gpus=()), "gpu-01: nvidia-smi shows no GPU"),
        (serving(gpus=(half_taken(memory_free_mib=None, problem="Lost"),)), "GPU 1: Lost"),
    ],
)
def test_gpus_that_cannot_be_seen_are_one_message(
    fit: Fit, hosts: Hosts, answer: GpuHost, said: str
) -> None:
    hosts.answers["gpu-01"] = answer
    assert_one_message(fit(*AIR, "--host", "gpu-01"), said)


def test_a_host_that_cannot_be_asked_is_one_message(fit: Fit) -> None:
    fit.inventory('servers = [("gpu-01", {"ssh_hostname": "127.0.0.9", "ssh_port": 9})]\n')
    (fit.root / "files").symlink_to(ROOT / "files")
    said = fit(*AIR, "--host", "gpu-01")
    assert_one_message(said, "gpu-01:", "check that `ssh -p 9 127.0.0.9` works")


def test_a_host_that_no_inventory_has_is_one_message(fit: Fit, hosts: Hosts) -> None:
    assert_one_message(fit(*AIR, "--host", "gpu-9"), "gpu-9: 0 hosts have this name")
    assert hosts.asked == []


@pytest.mark.parametrize("more", [("--gpu", "H200"), ("--ram", "8")])
@pytest.mark.usefixtures("hosts")
def test_a_host_and_another_place_are_one_too_many(fit: Fit, more: tuple[str, ...]) -> None:
    assert_one_message(fit(*AIR, "--host", "gpu-01", *more), "needs either a host")


def two_instances() -> HostPlan:
    """chat needs 12,300 MiB of two GPUs, long needs none."""
    need = DeviceNeed(weights_mib=5000, kv_mib=1000, compute_mib=100, runtime_mib=50)
    chat, other = plan(CHAT, LONG, gpus=GPU).instances
    on_gpus = InstanceNeed(gpus=(need, need))
    instances = (
        chat.model_copy(update={"need": on_gpus}),
        other.model_copy(update={"need": InstanceNeed()}),
    )
    return plan(CHAT, LONG, gpus=GPU).model_copy(update={"instances": instances})


def standing(planned: HostPlan, name: str, vram_mib: int | None) -> Standing:
    unit = f"corral-{name}.service"
    found = ObservedInstance(
        unit=unit, active="active", sub="running", pid=1, since="", vram_mib=vram_mib
    )
    return Standing(planned.host, name, True, found, planned.instance(name))


def test_status_shows_held_against_predicted_vram(capsys: pytest.CaptureFixture[str]) -> None:
    planned = two_instances()
    show(status_table([standing(planned, "chat", 11950), standing(planned, "long", None)]))
    heads, chat, other = capsys.readouterr().out.splitlines()
    assert "VRAM" in heads
    assert "11,950 of 12,300 MiB" in chat
    assert "MiB" not in other


def test_status_shows_what_its_host_did_about_an_instance(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    seen = standing(two_instances(), "chat", 0)
    assert isinstance(seen.answer, ObservedInstance)
    good = {"health": "ok", "watch": "it holds no GPU memory; restarted (1 of 3 within an hour)"}
    answer = seen.answer.model_copy(update=good)
    show(status_table([replace(seen, answer=answer)]))
    assert "it holds no GPU memory; restarted" in capsys.readouterr().out
    assert not replace(seen, answer=answer).is_good


@pytest.mark.parametrize(
    ("used_mib", "found"),
    [([], True), ([0], True), ([None], False), ([6000], False)],
)
def test_a_host_notices_a_server_of_gpus_on_the_cpu(
    used_mib: list[int | None], found: bool
) -> None:
    on_cpu = helper_module("observe.kept").on_cpu
    one = {"plan": {"gpus": [0]}, "health": "ok", "unit": "corral-chat.service"}
    processes = [held("corral-chat.service", used).model_dump() for used in used_mib]
    smi = {"problem": "", "processes": [*processes, held("corral-other.service", 5).model_dump()]}
    assert bool(on_cpu(one, smi)) is found
    assert not on_cpu({**one, "plan": {"gpus": []}}, smi)
    assert not on_cpu({**one, "health": "503 Loading model"}, smi)
    assert not on_cpu(one, {"problem": "Driver/library version mismatch", "processes": []})


def test_a_host_adds_up_what_each_unit_holds() -> None:
    processes = [
        held("corral-chat.service", 6000, on="GPU-0"),
        held("corral-chat.service", 5950),
        held("corral-chat.service", None),
        held("corral-other.service", 7777),
    ]
    found = helper_module("observe.kept").vram_mib([one.model_dump() for one in processes])
    assert found == {"corral-chat.service": 11950, "corral-other.service": 7777}


def test_status_of_a_host_that_does_not_answer_has_no_vram(
    capsys: pytest.CaptureFixture[str],
) -> None:
    planned = two_instances()
    instance = planned.instance("chat")
    reason = "lab-1: no route\n  Next: see"
    show(status_table([Standing(planned.host, "chat", True, reason, instance)]))
    assert "MiB" not in capsys.readouterr().out
