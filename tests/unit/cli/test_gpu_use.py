"""GPUs in `corral status`: their use, and what each instance holds of what was predicted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from corral.cli import instances
from corral.cli.reach import Planned, Target
from corral.cli.views.gpus import gpu_rows, gpu_table
from corral.host.answers import ObservedInstances
from corral.inventory.hosts import Inventory
from corral.terminal import show
from tests.samples import CHAT, GPU, ROOT, host

HOST = host(CHAT, gpus=GPU)
NEED = {"weights_mib": 9000, "kv_mib": 2000, "compute_mib": 900, "runtime_mib": 100}


def observed(**changes: Any) -> ObservedInstances:
    """chat should hold 12,000 MiB of GPU 0, and by its UUID as much of GPU 1."""
    chat = {
        "unit": "corral-chat.service", "active": "active", "sub": "running", "pid": 7, "since": "",
        "health": "ok", "plan": {"gpus": [0], "need": {"gpus": [NEED]}},
    }  # fmt: skip
    other = {
        **chat, "unit": "corral-other.service", "active": "inactive", "pid": 0,
        "plan": {"gpus": ["GPU-b"], "need": {"gpus": [NEED]}},
    }  # fmt: skip
    card = {"name": "NVIDIA H200", "memory_total_mib": 143771}
    first = {
        **card, "index": 0, "uuid": "GPU-a", "memory_used_mib": 13000, "utilization_percent": 88,
        "temperature_celsius": 61, "units": {"corral-chat.service": 11800, "python3 (pid 9)": None},
    }  # fmt: skip
    second = {**card, "index": 1, "uuid": "GPU-b", "memory_used_mib": 4}
    found = {"instances": {"chat": chat, "other": other}, "gpus": [first, second], **changes}
    return ObservedInstances.model_validate(found)


def test_each_gpu_shows_its_use_and_what_is_held_of_what_was_predicted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show(gpu_table({"lab-1": (HOST, observed())}))
    _, first, second = capsys.readouterr().out.splitlines()
    for part in ("lab-1", "NVIDIA H200", "13,000 of 143,771 MiB", "88 %", "61 C"):
        assert part in first
    assert "chat 11,800 of 12,000 MiB, python3 (pid 9) some MiB" in first
    # Not running, but its memory is spoken for.
    assert "other 0 of 12,000 MiB" in second
    assert second.count("unknown") == 2


def test_the_rows_of_json_name_instances() -> None:
    first, second = gpu_rows(HOST, observed())
    assert first["holders"][0] == {
        "instance": "chat", "unit": "corral-chat.service", "held_mib": 11800,
        "predicted_mib": 12000,
    }  # fmt: skip
    assert first["holders"][1]["instance"] is None
    assert second["holders"] == [
        {"instance": "other", "unit": "corral-other.service", "held_mib": 0, "predicted_mib": 12000}
    ]


def test_a_problem_of_the_driver_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    show(gpu_table({"lab-1": (HOST, observed(gpus=(), gpu_problem="GPU is lost"))}))
    assert "GPU is lost" in capsys.readouterr().out


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """`corral status` of one host, which is interrupted while it waits the second time."""
    inventory = Inventory(path=ROOT / "inventories/x.py", hosts=(HOST,))
    target = Target(HOST, ("chat",), inventory)
    events: list[str] = []

    def sleep(_: float) -> None:
        events.append("sleep")
        if events.count("sleep") == 2:
            raise KeyboardInterrupt

    def answer(_: Target) -> ObservedInstances:
        events.append("ask")
        return observed()

    monkeypatch.setattr(instances, "reach", lambda *_: [target])
    monkeypatch.setattr(instances, "planned", lambda _: Planned({}, {}))
    monkeypatch.setattr(instances, "observed_host", answer)
    monkeypatch.setattr("corral.cli.instances.time.sleep", sleep)
    return events


def test_watching_asks_again_until_it_is_interrupted(asked: list[str]) -> None:
    done = CliRunner().invoke(instances.status, ["lab-1", "--watch"])
    assert asked == ["ask", "sleep", "ask", "sleep"]
    assert done.output.count("NVIDIA H200") == 4
    # Without a plan nothing is known to be right.
    assert done.exit_code == 1


def test_without_watching_each_host_is_asked_once(asked: list[str]) -> None:
    done = CliRunner().invoke(instances.status, ["lab-1", "--json"])
    assert asked == ["ask"]
    document = json.loads(done.stdout)["lab-1"]
    assert [gpu["temperature_celsius"] for gpu in document["gpus"]] == [61, None]
    assert "plan" not in document["instances"]["chat"]
