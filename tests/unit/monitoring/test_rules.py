"""Each alert fires on its fault and stays quiet without it, by promtool of Debian's prometheus."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from corral.monitoring.rules import ALERTS, RUNBOOK, rules
from corral.monitoring.yaml_text import yaml_text
from tests.samples import ROOT

CHAT = 'host="gpu-1",instance="chat"'
GPU = 'host="gpu-1",gpu="0",name="H200",uuid="GPU-1"'
FILE = 'host="gpu-1",file="/var/lib/prometheus/node-exporter/corral.prom"'
BASELINE = f'corral_baseline_tokens_per_second{{{CHAT},measure="generation at 512"}}'
LONG = f'corral_baseline_tokens_per_second{{{CHAT},measure="generation at 32768"}}'
PREDICTED = f"corral_instance_vram_predicted_bytes{{{CHAT}}}"
HELD = f"corral_instance_vram_held_bytes{{{CHAT}}}"
ACTIVE = f"corral_instance_active{{{CHAT}}}"
WAITS = f"corral_instance_waits_for_activation{{{CHAT}}}"
FREE, SIZE = (
    f'node_filesystem_{part}_bytes{{host="gpu-1",mountpoint="/",fstype="ext4"}}'
    for part in ("avail", "size")
)
# Of llama-server: 60 tokens a minute, in so many seconds of generation.
TOKENS, SECONDS = (f"llamacpp:tokens_predicted{part}_total{{{CHAT}}}" for part in ("", "_seconds"))
AT_WORK = f"llamacpp:requests_processing{{{CHAT}}}"


def speed(seconds_per_minute: float, processing: int = 1) -> dict[str, str]:
    return {
        TOKENS: "0+60x120", SECONDS: f"0+{seconds_per_minute}x120", BASELINE: "42x120",
        LONG: "40x120", AT_WORK: f"{processing}x120",
    }  # fmt: skip


# Alert -> series with which it fires, and with which it does not. promtool's notation: 1x120 is 1
# each minute, 0+60x120 grows by 60 a minute.
Cases = dict[str, tuple[list[dict[str, str]], list[dict[str, str]]]]
CASES: Cases = {
    "CorralDown": (
        [
            {f"corral_instance_healthy{{{CHAT}}}": "1x10 0x110"},
            {f'up{{job="corral-servers-gpu-1",{CHAT}}}': "0x120"},
            {f"node_textfile_mtime_seconds{{{FILE}}}": "0x120"},
        ],
        [
            {f"corral_instance_healthy{{{CHAT}}}": "1x120"},
            {'up{job="other",host="gpu-1"}': "0x120"},
            {f"node_textfile_mtime_seconds{{{FILE}}}": "0+60x120"},
        ],
    ),
    "CorralSlow": (
        [speed(2.3)],
        [speed(2.1), speed(2.3, processing=4), {**speed(0), TOKENS: "5x120"}],
    ),
    "CorralServesFromCpu": (
        [
            {f"corral_instance_watchdog_fault{{{CHAT}}}": "1x120"},
            {HELD: "0x120", PREDICTED: "9e9x120", ACTIVE: "1x120"},
        ],
        [
            {HELD: "8e9x120", PREDICTED: "9e9x120", ACTIVE: "1x120"},
            {HELD: "0x120", PREDICTED: "9e9x120", ACTIVE: "0x120"},
            {HELD: "0x120", ACTIVE: "1x120"},
        ],
    ),
    "CorralMemoryAbovePrediction": (
        [{HELD: "9.3e9x120", PREDICTED: "9e9x120"}],
        [{HELD: "9.1e9x120", PREDICTED: "9e9x120"}, {HELD: "9e9x120"}],
    ),
    "CorralGpuErrors": (
        [
            {f"corral_gpu_xids_total{{{GPU}}}": "0x100 1x20"},
            {f"corral_gpu_ecc_uncorrected_total{{{GPU}}}": "2x100 3x20"},
            {
                'corral_gpus_answering{host="gpu-1"}': "7x120",
                'corral_gpus_on_bus{host="gpu-1"}': "8x120",
            },
            {'corral_gpu_query_failed{host="gpu-1"}': "1x120"},
        ],
        [
            # An old error that nobody has to act on any more; a reboot.
            {f"corral_gpu_xids_total{{{GPU}}}": "1x120"},
            {f"corral_gpu_ecc_uncorrected_total{{{GPU}}}": "3x100 0x20"},
            {
                'corral_gpus_answering{host="gpu-1"}': "8x120",
                'corral_gpus_on_bus{host="gpu-1"}': "8x120",
            },
        ],
    ),
    "CorralThrottled": (
        [{f'corral_gpu_throttled{{{GPU},reason="thermal"}}': "1x120"}],
        [
            {f'corral_gpu_throttled{{{GPU},reason="power_cap"}}': "1x120"},
            {f'corral_gpu_throttled{{{GPU},reason="thermal"}}': "0x115 1x5"},
        ],
    ),
    "CorralQueue": (
        [
            {f"llamacpp:requests_deferred{{{CHAT}}}": "3x120"},
            {f"vllm:num_requests_waiting{{{CHAT}}}": "3x120"},
            {'haproxy_backend_current_queue{host="gw",proxy="glm"}': "3x120"},
        ],
        [{f"llamacpp:requests_deferred{{{CHAT}}}": "0x115 3 0x4"}],
    ),
    "CorralContextFull": (
        [
            {f"corral_instance_kv_used_ratio{{{CHAT}}}": "0.97x120"},
            {f"vllm:kv_cache_usage_perc{{{CHAT}}}": "0.97x120"},
            # One long conversation, between whose requests the slot is idle.
            {f"corral_instance_kv_used_ratio{{{CHAT}}}": "0 0.97 " * 60},
        ],
        [
            {f"corral_instance_kv_used_ratio{{{CHAT}}}": "0.9x120"},
            # One long request alone.
            {f"corral_instance_kv_used_ratio{{{CHAT}}}": "0x115 0.97 0x4"},
        ],
    ),
    "CorralDiskFull": (
        [{FREE: "1000000000-1000000x120", SIZE: "6000000000x120"}],
        [
            {FREE: "1000000000-100000x120", SIZE: "6000000000x120"},
            # Weights that are fetched to a disk with room for them.
            {FREE: "1000000000-1000000x120", SIZE: "2000000000x120"},
        ],
    ),
    "CorralDriverDiffers": (
        [{'corral_driver_differs{host="gpu-1",module="580.1",library="580.2"}': "1x120"}],
        [{'corral_driver_differs{host="gpu-1",module="580.1",library="580.1"}': "0x120"}],
    ),
    "CorralDrift": (
        [
            {'corral_drift_rows{host="gpu-1"}': "2x120"},
            {'corral_weights_corrupt{host="gpu-1"}': "1x120"},
            {'corral_unreadable{host="gpu-1"}': "1x120"},
        ],
        [
            {
                'corral_weights_corrupt{host="gpu-1"}': "0x120",
                'corral_drift_rows{host="gpu-1"}': "0x120",
            }
        ],
    ),
    "CorralRolloutStopped": (
        [
            {WAITS: "1x120", 'corral_rollout_holds{host="gpu-1"}': "0x120"},
            {f"corral_instance_activation_unfinished{{{CHAT}}}": "1x120"},
        ],
        [
            {WAITS: "1x120", 'corral_rollout_holds{host="gpu-1"}': "1x120"},
            {WAITS: "0x120", 'corral_rollout_holds{host="gpu-1"}': "0x120"},
        ],
    ),
}


def promtool() -> str:
    own = Path(sys.executable).parent / "promtool"
    found = str(own) if own.exists() else shutil.which("promtool")
    assert found, "promtool is missing: run `make setup`, or `apt-get install prometheus`"
    return found


def ran(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [promtool(), *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def case(name: str, series: dict[str, str], *, fires: bool) -> dict[str, Any]:
    """Two hours of series, and whether the alert fires at their end."""
    firing = f'ALERTS{{alertname="{name}",alertstate="firing"}}'
    expected = {"labels": "{}", "value": int(fires)}
    return {
        "interval": "1m",
        "input_series": [{"series": key, "values": row} for key, row in series.items()],
        "promql_expr_test": [
            {
                "expr": f"count({firing}) > bool 0 or vector(0)",
                "eval_time": "119m",
                "exp_samples": [expected],
            }
        ],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "corral.yml").write_text(yaml_text(rules()))
    return tmp_path


def test_promtool_finds_all_rules_correct(folder: Path) -> None:
    assert f"{len(ALERTS)} rules found" in ran(folder, "check", "rules", "corral.yml")


def test_every_alert_has_cases() -> None:
    assert list(CASES) == [alert.name for alert in ALERTS]


def test_each_alert_fires_on_its_faults_alone(folder: Path) -> None:
    tests = [
        case(name, series, fires=fires)
        for name, (faults, healthy) in CASES.items()
        for fires, some in ((True, faults), (False, healthy))
        for series in some
    ]
    document = {"rule_files": ["corral.yml"], "evaluation_interval": "1m", "tests": tests}
    (folder / "test.yml").write_text(json.dumps(document))
    ran(folder, "test", "rules", "test.yml")


def test_every_alert_names_a_command_and_a_part_of_the_runbook() -> None:
    text = (ROOT / RUNBOOK).read_text()
    for alert in ALERTS:
        rule: dict[str, Any] = alert.rule
        assert f"## {alert.name}\n" in text
        assert rule["annotations"]["runbook"] == f"{RUNBOOK}#{alert.name.lower()}"
        assert rule["annotations"]["command"].split()[0] in ("corral", "pyinfra", "ssh")
        assert "{{ $labels.host }}" in rule["annotations"]["summary"] + alert.command
