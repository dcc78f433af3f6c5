"""What is read of a vLLM server's log and metrics, as vLLM 0.24 writes them."""

from __future__ import annotations

from lab.measure_vllm.figures import labels, read_log, total
from lab.measure_vllm.settings import SETTINGS

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
    assert len({setting.name for setting in SETTINGS}) == len(SETTINGS)
