"""What is measured: the settings, in the order of their use to a prediction."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """One server.

    ``imported_before`` starts it from a process that has imported vLLM already, which changes the
    time until it is ready, and no figure of memory.
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
        return found

    def environment(self) -> dict[str, str]:
        """Variables that this setting is about: the sampler, and whether nvcc is there."""
        found = {} if self.sampler == "flashinfer" else {"VLLM_USE_FLASHINFER_SAMPLER": "0"}
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
