"""How vLLM serves: what its answers, its metrics and its log say. Measured with 0.32.0."""

import json

from corral_host.engines.base import Engine
from corral_host.engines.vllm_server import log as server_log
from corral_host.engines.vllm_server import memory
from corral_host.engines.vllm_server.metrics import total
from corral_host.engines.vllm_server.speeds import speeds
from corral_host.system.commands import HostError

IN_FLIGHT = ("vllm:num_requests_running", "vllm:num_requests_waiting")
WORK = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total")
DRAFTED = ("vllm:spec_decode_num_draft_tokens_total", "vllm:spec_decode_num_accepted_tokens_total")


class VllmServer(Engine):
    """The server's half of the engine."""

    # The grammar of a call lets spaces stand around values. At temperature 0 a model without sense
    # would write nothing else; a penalty for what is repeated ends that.
    tool_call_fields = {"frequency_penalty": 2, "presence_penalty": 2}
    reasoning_fields = {"min_tokens": 8}
    # /health answers 200 when the port opens, also where the first request kills the engine.
    health_is_ready = False
    # gloo, of each worker: about 15 ports on 127.0.0.1.
    loopback_ports = True

    def slots(self, get):
        """Only the length; the number of slots is in no answer."""
        return None, json.loads(get("/v1/models"))["data"][0]["max_model_len"]

    def in_flight(self, instance, get):  # noqa: ARG002
        """Requests of all engines of the server."""
        return int(sum(metrics(get, IN_FLIGHT)))

    def drafts(self, get):
        """Tokens that the MTP layer drafted, and how many of them the model accepted."""
        return metrics(get, DRAFTED)

    def trial_gpu_mib(self, instance, total_mib):
        """Its share of the GPU (gpu_memory_utilization)."""
        return memory.gpu_mib(instance["settings"], total_mib)

    def trial_host_mib(self, instance, weights_mib):
        """Its processes; without GPUs also weights and KV cache."""
        return memory.host_mib(instance["settings"], instance["gpus"], weights_mib)

    def memory_report(self, log):
        """Weights, KV cache and CUDA graphs of the fullest rank, and what the cache holds."""
        return memory.memory_report(log)

    def tokens(self, instance, ask, text):
        body = {"model": instance["alias"], "prompt": text, "add_special_tokens": False}
        return json.loads(ask("/tokenize", body))["tokens"]

    def speeds(self, ask, timed, words, tokens, generated, limit):
        """By its own times; see `corral_host.engines.vllm_server.speeds`."""
        return speeds(ask, timed, words, tokens, generated, limit)

    def work(self, text):
        found = [total(text, name) for name in WORK]
        return None if None in found else sum(found)

    def why_it_ended(self, log):
        """vLLM's own errors with what to change."""
        return server_log.why_it_ended(log)


def metrics(get, names):
    """Values of metrics, in order. Raises HostError for one that is not there."""
    text = get("/metrics")
    found = {name: total(text, name) for name in names}
    missing = [name for name, value in found.items() if value is None]
    if missing:
        raise HostError(f"/metrics has no {' and no '.join(missing)}")
    return tuple(found.values())
