"""Results of benchmarks, as `corral bench` keeps them."""

from __future__ import annotations

from typing import Any

from corral.bench.result import Measure, Result
from corral.engines.benchmark import Test


def measure(*samples: float, test: Test = "generation", depth: int = 0, **more: int) -> Measure:
    sizes = {"sequences": 1, "tokens": 128, **more}
    return Measure(test=test, depth_tokens=depth, samples=samples, **sizes)


def result(*measures: Measure, **changes: Any) -> Result:
    values: dict[str, Any] = {
        "host": "node-1",
        "instance": "chat",
        "began_at": "2026-11-21T16:06:18Z",
        "seconds": 24.1,
        "where": "beside",
        "cpu": "AMD EPYC",
        "gpus": (),
        "engine": "llama.cpp",
        "kind": "llama.cpp",
        "release": "0c1e57098bba-cpu-cd300df0",
        "commit": "0c1e57098bba43ac29e6e3b677cdceebdd22334f",
        "model": "tiny-glm-moe",
        "quant": "Q8_0",
        "profile": "tiny-chat",
        "generation": "ea24620925437be3",
        "context_tokens_per_slot": 2048,
        "slots": 2,
        "repetitions": 5,
        "commands": (("llama-bench",),),
        "measures": measures or (measure(10.0, 11.0, 12.0),),
    }
    return Result(**{**values, **changes})
