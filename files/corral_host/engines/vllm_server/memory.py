"""What vLLM says about its memory at a start, and what a start takes; as of 0.24.0 and 0.32.0."""

import math
import re

# One line of each rank.
WEIGHTS = re.compile(r"Model loading took ([\d.]+) GiB")
CACHE = re.compile(
    r"Available KV cache memory: ([\d.]+) GiB|Explicitly set \(([\d.]+)/[\d.]+\) GiB for KV cache"
)
GRAPHS = re.compile(r"Graph capturing finished in \d+ secs?, took (-?[\d.]+) GiB")
# One line of each engine.
TOKENS = re.compile(r"KV cache size: ([\d,]+) tokens")
REQUESTS = re.compile(r"Maximum concurrency for ([\d,]+) tokens per request: ([\d.]+)x")
# Resident memory on CPU: API server 650 MiB, engine 600, each worker 1700; with a margin.
SERVER_MIB, RANK_MIB = 2048, 3072


def memory_report(log):
    """The worst of all ranks and engines; None for what the log does not have."""
    requests = REQUESTS.findall(log)
    return {
        "weights_gib": most(float(found) for found in WEIGHTS.findall(log)),
        "cache_gib": least(float(a or b) for a, b in CACHE.findall(log)),
        "graphs_gib": most(float(found) for found in GRAPHS.findall(log)),
        "cache_tokens": least(number(found) for found in TOKENS.findall(log)),
        "request_tokens": least(number(length) for length, _ in requests),
        "requests": least(float(times) for _, times in requests),
    }


def most(values):
    return max(values, default=None)


def least(values):
    return min(values, default=None)


def number(text):
    return int(text.replace(",", ""))


def gpu_mib(settings, total_mib):
    """vLLM refuses to start unless its share of the whole memory is free."""
    return math.ceil(total_mib * settings["gpu_memory_utilization"])


def host_mib(settings, gpus, weights_mib):
    ranks = settings["tensor_parallel"] * settings["data_parallel"]
    in_host_memory = 0 if gpus else weights_mib + ranks * (settings["kv_cache_mib"] or 0)
    return SERVER_MIB + ranks * RANK_MIB + in_host_memory
