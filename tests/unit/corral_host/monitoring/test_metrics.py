"""The textfile of a host: its format, its samples, and what is left out where something fails."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.unit.helper_modules import helper_module

textfile, metrics = helper_module("monitoring.textfile"), helper_module("monitoring.metrics")
servers, gpus = helper_module("monitoring.servers"), helper_module("monitoring.gpus")
hashed, commands = helper_module("monitoring.hashed"), helper_module("system.commands")
GIB = 1024**3
NEED = {"weights_mib": 1000, "kv_mib": 200, "compute_mib": 40, "runtime_mib": 8, "reserved_mib": 0}


def test_a_metric_is_one_block_and_hostile_text_stays_a_label() -> None:
    found = textfile.Textfile()
    found.add("corral_a", 1, model='x"} 9\ncorral_b 7\\')
    found.add("corral_c_total", 2)
    found.add("corral_a", True, model="\udcff")
    for unknown in (None, math.nan, math.inf):
        found.add("corral_a", unknown, model="unknown")
    assert found.text() == (
        "# TYPE corral_a gauge\n"
        'corral_a{model="x\\"} 9\\ncorral_b 7\\\\"} 1\n'
        'corral_a{model="?"} 1\n'
        "# TYPE corral_c_total counter\n"
        "corral_c_total 2\n"
    )


@dataclass
class Watched:
    """A host with one instance, `chat`, that runs its first generation."""

    root: Path
    instance: dict[str, Any]
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def paths(self) -> dict[str, str]:
        folders = {name: str(self.root / name) for name in ("state", "units", "gateway")}
        return {**folders, "sockets": str(self.root / "run")}

    @property
    def folder(self) -> Path:
        return self.root / "state/instances/chat"

    def stage(self, generation: str) -> None:
        path = self.folder / "generations" / generation / "plan.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(self.instance["plan"]))

    def report(self, at: str, to: str, outcome: str, *gate: dict[str, Any]) -> None:
        (self.folder / "history").mkdir(exist_ok=True)
        report = {"instance": "chat", "at": at, "to": to, "outcome": outcome, "gate": list(gate)}
        (self.folder / "history" / f"{at}-{to}.json").write_text(json.dumps(report))

    def samples(self) -> dict[str, float]:
        """Metric, without the labels that say which instance -> its value."""
        path = self.root / "corral.prom"
        metrics.metrics({"paths": self.paths, "textfile": str(path)})
        lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        return {
            name.replace('{instance="chat"}', "").replace('instance="chat",', ""): float(number)
            for name, number in (line.rsplit(" ", 1) for line in lines)
        }


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    plan = {
        "name": "chat", "kind": "llama.cpp", "model": "small", "quant": "Q8_0", "alias": "chat",
        "release": "r1", "profile": "p", "folder": str(tmp_path / "state/instances/chat"),
        "uses_gpu": True, "need": {"gpus": [NEED, {**NEED, "reserved_mib": 2000}], "unknown": ""},
    }  # fmt: skip
    instance = {
        "unit": "corral-chat.service", "active": "active", "restarts": 3, "health": "ok",
        "running_generation": "one", "installed_generation": "one", "vram_mib": 1200, "plan": plan,
    }  # fmt: skip
    made = Watched(tmp_path, instance)
    made.stage("one")
    seen = {"instances": {"chat": instance}, "gpu_problem": ""}
    monkeypatch.setattr(servers, "instances", lambda _: {**seen, **made.more})
    monkeypatch.setattr(servers, "kv_used", lambda _: 0.25)
    monkeypatch.setattr(gpus, "figures", lambda: ([], ""))
    monkeypatch.setattr(gpus.kernel, "pci_gpus", list)
    return made


def test_an_instance_tells_what_it_runs_and_holds(host: Watched) -> None:
    found = host.samples()
    info = (
        'corral_instance_info{unit="corral-chat.service",generation="one",release="r1",'
        'model="small",quant="Q8_0",engine="llama.cpp",alias="chat",profile="p"}'
    )
    assert found[info] == 1
    assert found["corral_instance_healthy"] == found["corral_instance_active"] == 1
    assert found["corral_instance_restarts_total"] == 3
    assert found["corral_instance_vram_held_bytes"] == 1200 * 1024**2
    assert found["corral_instance_vram_predicted_bytes"] == (1248 + 2000) * 1024**2
    assert found["corral_instance_kv_used_ratio"] == 0.25
    assert found["corral_unreadable"] == found["corral_rollout_holds"] == 0


def test_a_server_that_fell_back_to_the_cpu_holds_nothing(host: Watched) -> None:
    host.instance["vram_mib"] = None
    assert host.samples()["corral_instance_vram_held_bytes"] == 0


def test_memory_is_unknown_while_nvidia_smi_does_not_answer(host: Watched) -> None:
    host.instance["vram_mib"] = None
    host.more["gpu_problem"] = "Driver/library version mismatch"
    found = host.samples()
    assert found["corral_instance_active"] == 1
    assert not [name for name in found if "vram" in name]


def test_what_the_watchdog_found_is_reported(host: Watched) -> None:
    folder = host.root / "run/watched-by-corral"
    folder.mkdir(parents=True)
    assert host.samples()["corral_instance_watchdog_fault"] == 0
    record = {"fault": "no completion; restarted", "restarts": [1.0, 2.0], "stopped": ""}
    (folder / "chat.json").write_text(json.dumps(record))
    found = host.samples()
    assert found["corral_instance_watchdog_fault"] == 1
    assert found["corral_instance_watchdog_restarts"] == 2


def test_what_no_plan_predicted_is_not_predicted(host: Watched) -> None:
    host.instance["plan"]["need"]["unknown"] = "no header"
    (host.folder / "generations/one/plan.json").unlink()
    assert "corral_instance_vram_predicted_bytes" not in host.samples()


def test_the_last_activation_tells_its_gate_and_the_baseline_is_beside_it(host: Watched) -> None:
    speed = {
        "part": "speed",
        "ok": True,
        "figure": "812 prompt at 512, 41.2 generation at 512 tokens/s",
    }
    failed = {"part": "golden", "ok": False, "figure": "", "limit": ""}
    host.report("2026-11-28T10:00:00.000Z", "zero", "kept")
    host.report("2026-11-29T10:00:00.000Z", "one", "reverted", speed, failed,
                {"part": "soak", "ok": None, "figure": ""})  # fmt: skip
    host.report("2026-11-29T11:00:00.000Z", "one", "refused")
    samples = {"generation at 512": [40.0, 42.0]}
    (host.folder / "baseline.json").write_text(json.dumps({"samples": samples}))
    found = host.samples()
    assert found["corral_instance_activation_kept"] == 0
    assert found["corral_instance_activated_timestamp_seconds"] == 1795946400
    assert found['corral_gate_tokens_per_second{measure="prompt at 512"}'] == 812
    assert found['corral_gate_tokens_per_second{measure="generation at 512"}'] == 41.2
    assert found['corral_baseline_tokens_per_second{measure="generation at 512"}'] == 41
    assert found['corral_gate_passed{part="golden"}'] == 0
    assert 'corral_gate_passed{part="soak"}' not in found


def test_a_generation_that_is_staged_and_not_tried_waits(host: Watched) -> None:
    assert host.samples()["corral_instance_waits_for_activation"] == 0
    (host.folder / "staged").symlink_to("generations/one")
    assert host.samples()["corral_instance_waits_for_activation"] == 1


def test_one_part_that_fails_leaves_the_others(
    host: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Any) -> None:
        raise ValueError("damaged")

    monkeypatch.setattr(servers, "instances", broken)
    found = host.samples()
    assert found["corral_unreadable"] == 1
    assert "corral_weights_corrupt" in found


@pytest.mark.parametrize("record", [b"[]", b'{"rows": []}', b'{"rows": [1], "at": "x"}', b"\xff"])
def test_a_damaged_record_of_drift_leaves_all_other_figures(host: Watched, record: bytes) -> None:
    path = host.root / "state/monitoring/drift.json"
    path.parent.mkdir()
    path.write_bytes(record)
    assert host.samples()["corral_instance_active"] == 1


def test_gpus_tell_their_errors_since_boot(host: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    row: dict[str, Any] = dict.fromkeys(helper_module("nvidia.figures").FIELDS.values())
    row |= {"index": "0", "uuid": "GPU-1", "name": "H200", "pci": "0000:3b:00.0"}
    row |= {"memory_used_mib": 1024.0, "utilization_percent": 50.0, "throttled": "0x20"}
    xids = [{"pci": "0000:3b:00.0", "code": 79}, {"pci": "0000:5e:00.0", "code": 31}]
    monkeypatch.setattr(gpus, "figures", lambda: ([row], "GPU is lost"))
    monkeypatch.setattr(gpus.kernel, "pci_gpus", lambda: [{"pci": "0000:3b:00.0"}, {"pci": "b"}])
    monkeypatch.setattr(gpus.kernel, "xids", lambda: {"xids": xids, "xids_unreadable": ""})
    monkeypatch.setattr(gpus.kernel, "module", lambda: {"module_version": "580.1"})
    monkeypatch.setattr(gpus, "library_version", lambda: "580.2")
    labels, found = 'gpu="0",uuid="GPU-1",name="H200"', host.samples()
    assert found[f"corral_gpu_memory_used_bytes{{{labels}}}"] == GIB
    assert found[f"corral_gpu_utilization_ratio{{{labels}}}"] == 0.5
    assert found[f'corral_gpu_throttled{{{labels},reason="thermal"}}'] == 1
    assert found[f"corral_gpu_xids_total{{{labels}}}"] == 1
    assert found['corral_xids_total{pci="0000:5e:00.0",code="31"}'] == 1
    assert (found["corral_gpus_on_bus"], found["corral_gpus_answering"]) == (2, 1)
    assert found["corral_gpu_query_failed"] == 1
    assert found['corral_driver_differs{module="580.1",library="580.2"}'] == 1
    assert f"corral_gpu_power_watts{{{labels}}}" not in found


def test_a_kernel_log_that_cannot_be_read_says_nothing_of_errors(
    host: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {**dict.fromkeys(helper_module("nvidia.figures").FIELDS.values()), "index": "0"}
    monkeypatch.setattr(gpus, "figures", lambda: ([row], ""))
    monkeypatch.setattr(gpus.kernel, "xids", lambda: {"xids": [], "xids_unreadable": "no"})
    assert not [name for name in host.samples() if "xids" in name]


def test_a_missing_folder_of_the_collector_says_what_to_do(host: Watched, tmp_path: Path) -> None:
    with pytest.raises(commands.HostError, match="deploy this host again"):
        metrics.metrics({"paths": host.paths, "textfile": str(tmp_path / "no/corral.prom")})
