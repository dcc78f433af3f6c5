"""What is measured: the settings, in the order of their use to a prediction."""

from __future__ import annotations

from dataclasses import dataclass

# Multicast over NVLink can put GPUs that others share out of service, and vLLM's all-reduce in
# symmetric memory uses it; its custom all-reduce copies between peers and does not. The rest is the
# environment of Corral's units: ranks find each other on loopback.
_SEVERAL_GPUS = {
    "NCCL_NVLS_ENABLE": "0",
    "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1",
    "NVSHMEM_DISABLE_NVLS": "1",
    "VLLM_ALLREDUCE_USE_SYMM_MEM": "0",
    "VLLM_ALLREDUCE_USE_FLASHINFER": "0",
    "VLLM_USE_NCCL_SYMM_MEM": "0",
    "VLLM_HOST_IP": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
}


@dataclass(frozen=True)
class Setting:
    """One server.

    ``imported_before`` starts it from a process that has imported vLLM already, which changes the
    time until it is ready, and no figure of memory. ``rank_killed`` ends it by killing the process
    on the last GPU under a stream.
    """

    name: str
    model: str
    max_model_len: int
    mtp_tokens: int = 0
    utilization: float = 0.9
    eager: bool = True
    kv_dtype: str = "auto"
    max_num_batched_tokens: int | None = None
    imported_before: bool = True
    stop_with_stream: bool = False
    user_id: int | None = None
    sampler: str = "native"
    max_num_seqs: int | None = None
    with_nvcc: bool = True
    tp: int = 1
    dp: int = 1
    experts_whole: bool = False
    graphs: str | None = None
    rank_killed: bool = False

    def arguments(self) -> list[str]:
        """Arguments of ``vllm serve`` that this setting is about."""
        found = ["--max-model-len", str(self.max_model_len)]
        found += ["--gpu-memory-utilization", str(self.utilization)]
        if self.eager:
            found.append("--enforce-eager")
        if self.mtp_tokens:
            method = f'{{"method": "mtp", "num_speculative_tokens": {self.mtp_tokens}}}'
            found += ["--speculative-config", method]
        if self.kv_dtype != "auto":
            found += ["--kv-cache-dtype", self.kv_dtype]
        if self.max_num_batched_tokens:
            found += ["--max-num-batched-tokens", str(self.max_num_batched_tokens)]
        if self.max_num_seqs:
            found += ["--max-num-seqs", str(self.max_num_seqs)]
        if self.tp > 1:
            found += ["--tensor-parallel-size", str(self.tp)]
        if self.dp > 1:
            found += ["--data-parallel-size", str(self.dp)]
        if self.experts_whole:
            found.append("--enable-expert-parallel")
        if self.graphs:
            found += ["--compilation-config", self.graphs]
        return found

    def environment(self) -> dict[str, str]:
        """Variables that this setting is about: the sampler, and whether nvcc is there."""
        found = {} if self.sampler == "flashinfer" else {"VLLM_USE_FLASHINFER_SAMPLER": "0"}
        if self.tp * self.dp > 1:
            found |= _SEVERAL_GPUS
        if not self.with_nvcc:
            found |= {"CUDA_HOME": "/nowhere", "VLLM_HAS_FLASHINFER_CUBIN": "1"}
            found["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
        return found


_AIR = "GLM-4.5-Air-FP8"
_FLASH = "GLM-4.7-Flash"

SETTINGS = (
    Setting("flash-plain", _FLASH, 65536, imported_before=False),
    Setting("air", _AIR, 32768),
    Setting("air-mtp", _AIR, 32768, mtp_tokens=1),
    Setting("air-short", _AIR, 8192, stop_with_stream=True),
    Setting("air-short-mtp", _AIR, 8192, mtp_tokens=1),
    Setting("flash-mtp", _FLASH, 65536, mtp_tokens=1),
    Setting("flash-short", _FLASH, 16384, stop_with_stream=True),
    Setting("flash-short-mtp", _FLASH, 16384, mtp_tokens=1),
    Setting("air-throughput", _AIR, 32768, max_num_batched_tokens=32768),
    Setting("air-fp8-kv", _AIR, 32768, kv_dtype="fp8"),
    Setting("air-095", _AIR, 32768, utilization=0.95),
    Setting("air-too-long", _AIR, 131072),
    Setting("flash-throughput", _FLASH, 65536, max_num_batched_tokens=32768),
    Setting("flash-fp8-kv", _FLASH, 65536, kv_dtype="fp8"),
    Setting("flash-sampler", _FLASH, 65536, sampler="flashinfer"),
    Setting("air-sampler", _AIR, 32768, sampler="flashinfer"),
    Setting("air-sampler-mtp", _AIR, 32768, mtp_tokens=1, sampler="flashinfer"),
    Setting("air-256-seqs", _AIR, 32768, max_num_seqs=256),
    Setting("air-16384", _AIR, 32768, max_num_batched_tokens=16384),
    Setting("flash-no-nvcc", _FLASH, 65536, sampler="flashinfer", with_nvcc=False),
    Setting("air-graphs-mtp", _AIR, 32768, mtp_tokens=1, eager=False),
    Setting("flash-graphs-mtp", _FLASH, 65536, mtp_tokens=1, eager=False, user_id=61000),
    Setting("flash-graphs", _FLASH, 65536, eager=False, sampler="flashinfer"),
    Setting("air-graphs", _AIR, 32768, eager=False, sampler="flashinfer"),
    Setting("air-throughput-mtp", _AIR, 32768, mtp_tokens=1, max_num_batched_tokens=32768),
)

# On two GPUs. All are eager: with torch.compile vLLM may fuse its all-reduce by FlashInfer, which
# maps multicast memory.
TWO_GPU_SETTINGS = (
    Setting("air-tp2", _AIR, 32768, tp=2),
    Setting("air-tp2-ep", _AIR, 32768, tp=2, experts_whole=True),
    Setting("air-dp2-ep", _AIR, 32768, dp=2, experts_whole=True),
    Setting("flash-tp2", _FLASH, 65536, tp=2, rank_killed=True),
    Setting("flash-tp2-again", _FLASH, 65536, tp=2, imported_before=False),
    Setting("flash-dp2-ep", _FLASH, 65536, dp=2, experts_whole=True, rank_killed=True),
    Setting("air-tp2-mtp", _AIR, 32768, tp=2, mtp_tokens=1),
    Setting("air-dp2-ep-mtp", _AIR, 32768, dp=2, experts_whole=True, mtp_tokens=1),
    Setting("flash-tp2-ep", _FLASH, 65536, tp=2, experts_whole=True),
    Setting("flash-tp2-mtp", _FLASH, 65536, tp=2, mtp_tokens=1),
    Setting("flash-dp2-ep-mtp", _FLASH, 65536, dp=2, experts_whole=True, mtp_tokens=1),
    Setting("air-tp2-ep-mtp", _AIR, 32768, tp=2, experts_whole=True, mtp_tokens=1),
    Setting("air-dp2", _AIR, 32768, dp=2),
    Setting("flash-dp2", _FLASH, 65536, dp=2),
    Setting("flash-tp2-ep-mtp", _FLASH, 65536, tp=2, experts_whole=True, mtp_tokens=1),
    Setting("air-dp2-mtp", _AIR, 32768, dp=2, mtp_tokens=1),
    Setting("flash-dp2-mtp", _FLASH, 65536, dp=2, mtp_tokens=1),
)

# Under load: graphs of decoding without torch.compile, so that a server is ready within a minute.
_DECODING_GRAPHS = (
    '{"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY", '
    '"cudagraph_capture_sizes": [1, 2, 4, 8, 16, 24, 32, 48, 64]}'
)


def loaded(name: str, *, tp: int = 1) -> Setting:
    """A server for a load test of up to 64 requests at a time."""
    return Setting(
        name, _FLASH, 16384, tp=tp, eager=False, graphs=_DECODING_GRAPHS, max_num_seqs=64
    )
