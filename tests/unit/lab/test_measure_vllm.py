"""What is read of a vLLM server's log and metrics, as vLLM 0.24 writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.measure_vllm import gpus
from lab.measure_vllm.figures import label_of_each, labels, read_log, total
from lab.measure_vllm.settings import SETTINGS, TWO_GPU_SETTINGS, loaded
from tests.predicted_vllm import PREDICTED, read_rows

_PROFILED = (
    "DEBUG [gpu_worker.py:507] Memory profiling takes 12.01 seconds. Total non KV cache memory: "
    "58.63GiB; torch peak memory increase: 5.6GiB; non-torch forward increase memory: 0.25GiB; "
    "weights memory: 1GiB."
)
_LOG = f"""
INFO [gpu_model_runner.py:5256] Model loading took 103.22 GiB memory and 7.523832 seconds
INFO [gpu_model_runner.py:6580] Estimated CUDA graph memory: 1.24 GiB total
{_PROFILED}
INFO [gpu_worker.py:508] Available KV cache memory: 15.51 GiB
INFO [kv_cache_utils.py:2146] GPU KV cache size: 86,528 tokens
INFO [kv_cache_utils.py:2147] Maximum concurrency for 32,768 tokens per request: 2.64x
INFO [gpu_model_runner.py:6656] Graph capturing finished in 26 secs, took 1.81 GiB
"""
_METRICS = """
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",num_gpu_blocks="5408"} 1.0
vllm:spec_decode_num_draft_tokens_total{engine="0"} 80.0
vllm:spec_decode_num_draft_tokens_total{engine="1"} 1.0
"""


def test_the_figures_of_a_log() -> None:
    assert read_log(_LOG) == {
        "weights_gib": 103.22,
        "load_s": 7.523832,
        "graphs_estimated_gib": 1.24,
        "activation_peak_gib": 5.6,
        "other_gib": 0.25,
        "kv_gib": 15.51,
        "kv_tokens": 86528,
        "max_concurrency": 2.64,
        "graphs_gib": 1.81,
        "graphs_s": 26,
    }


def test_labels_and_sums_of_metrics() -> None:
    assert labels(_METRICS, "vllm:cache_config_info")["num_gpu_blocks"] == "5408"
    assert total(_METRICS, "vllm:spec_decode_num_draft_tokens_total") == 81
    assert total(_METRICS, "vllm:absent") is None


def test_each_setting_has_a_name_of_its_own() -> None:
    settings = (*SETTINGS, *TWO_GPU_SETTINGS)
    assert len({setting.name for setting in settings}) == len(settings)


def test_of_several_ranks_each_figure_is_kept() -> None:
    second = _PROFILED.replace("5.6GiB", "5.5GiB").replace(
        "weights memory: 1GiB", "weights memory: 2GiB"
    )
    found = read_log(_LOG + second)
    assert found["rank_activation_peak_gib"] == [5.6, 5.5]
    assert found["rank_weights_gib"] == [1, 2]
    assert label_of_each(_METRICS, "vllm:spec_decode_num_draft_tokens_total", "engine") == [
        "0",
        "1",
    ]


def test_several_gpus_leave_multicast_off() -> None:
    for setting in (*TWO_GPU_SETTINGS, loaded("load", tp=2)):
        environment = setting.environment()
        assert environment["NCCL_NVLS_ENABLE"] == "0"
        assert environment["TORCH_SYMM_MEM_DISABLE_MULTICAST"] == "1"
        assert environment["NVSHMEM_DISABLE_NVLS"] == "1"
        assert environment["VLLM_ALLREDUCE_USE_SYMM_MEM"] == "0"
        # torch.compile may fuse an all-reduce that uses it.
        assert setting.eager or '"mode": 0' in (setting.graphs or "")


def test_ranks_are_arguments() -> None:
    by_name = {setting.name: setting.arguments() for setting in TWO_GPU_SETTINGS}
    assert "--tensor-parallel-size 2" in " ".join(by_name["air-tp2"])
    assert "--data-parallel-size 2" in " ".join(by_name["air-dp2-ep"])
    assert "--enable-expert-parallel" in by_name["air-dp2-ep"]
    assert "--enable-expert-parallel" not in by_name["air-dp2"]


def test_what_processes_hold_on_each_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\n"
        'case "$1" in\n'
        "--query-gpu=memory*) printf '4, 143771\\n5, 143771\\n';;\n"
        "--query-gpu=uuid*) printf 'GPU-b, 1\\nGPU-a, 0\\n';;\n"
        "*) printf '%s, GPU-a, 100\\n%s, GPU-b, 20\\n%s, GPU-b, 3\\n' $$ $$ $$;;\n"
        "esac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert gpus.memory_mib() == [(4, 143771), (5, 143771)]
    found = gpus.processes()
    assert [process["gpu"] for process in found] == [0, 1, 1]
    assert gpus.held_mib(found) == [100, 23]


def test_each_setting_of_two_gpus_was_predicted() -> None:
    assert [row["name"] for row in read_rows(PREDICTED)] == [one.name for one in TWO_GPU_SETTINGS]
