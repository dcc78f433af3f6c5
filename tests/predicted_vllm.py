"""What Corral predicts of vLLM beside what a server reported on H200s, as tables.

    python -m tests.predicted_vllm              docs/measurements/vllm-h200.jsonl, one GPU
    python -m tests.predicted_vllm --predict    one line for each setting of two GPUs
    python -m tests.predicted_vllm ROWS.jsonl   rows of two GPUs: the errors of the predictions made
                                                before, and of today's counting

The lines of --predict were written before any server had run on two GPUs
(docs/measurements/vllm-h200-x2-predicted.jsonl).
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from corral.catalog.profile import Profile
from corral.engines.memory_count import MemoryCount
from corral.engines.vllm.memory.count import count
from corral.engines.vllm.memory.ranks import Ranks
from corral.engines.vllm.memory.weights import weights_bytes
from corral.fit.estimate import DRIVER_MIB
from corral.model_files.model import SafetensorsModel
from lab.measure_vllm.settings import TWO_GPU_SETTINGS
from tests.samples import ROOT
from tests.unit.model_dimensions import GLM_4_5_AIR, GLM_4_7_FLASH, model_of

ROWS = ROOT / "docs" / "measurements" / "vllm-h200.jsonl"
PREDICTED = ROWS.with_name("vllm-h200-x2-predicted.jsonl")
H200_MIB = 143771
MODELS = {
    "GLM-4.5-Air-FP8": model_of(GLM_4_5_AIR, "fp8-channel"),
    "GLM-4.7-Flash": model_of(GLM_4_7_FLASH),
}
_GIB = 1024**3
_HEAD = (
    "| setting | GiB of weights | predicted | error | tokens of KV | predicted | error |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
)


_TWO_GPU_HEAD = (
    "| setting | GiB of weights on a rank | predicted before | now | tokens of KV on a rank "
    "| predicted before | now | MiB held on a GPU | predicted before | now |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
)


def read_rows(path: Path = ROWS) -> list[dict[str, Any]]:
    """The measured servers, or the predictions."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def predicted(row: dict[str, Any]) -> tuple[float, int]:
    """GiB of weights and tokens of KV that Corral counts for a row's server."""
    model = MODELS[row["model"]]
    assert model.dimensions
    mtp = bool(row["mtp_tokens"])
    ranks = Ranks(row["tp"], row.get("dp", 1), row.get("experts_whole", False))
    weights = weights_bytes(model.tensors, model.dimensions, ranks, mtp=mtp)
    found = _count(model, row)
    tokens = found.cache.tokens if found.cache else found.longest_tokens
    return weights / _GIB, tokens or 0


def _count(model: SafetensorsModel, row: dict[str, Any]) -> MemoryCount:
    served = {
        "model": "m",
        "quant": "q",
        "engine": "e",
        "context_tokens_per_slot": row["max_model_len"],
        "slots": row["max_num_seqs"],
        "batch_tokens": row["max_num_batched_tokens"],
        "gpu_memory_utilization": row["utilization"],
        "tensor_parallel": row["tp"],
        "data_parallel": row.get("dp", 1),
        "expert_parallel": row.get("experts_whole", False),
        "eager": row["eager"],
        "mtp_draft_tokens": row["mtp_tokens"] or None,
    }
    if row["kv_dtype"] == "fp8":
        served |= {"kv_type_k": "fp8", "kv_type_v": "fp8"}
    profile = Profile.model_validate(served)
    return count(model, profile, gpu_memory_mib=[row["gpu_mib"]] * row["tp"] * row.get("dp", 1))


def reported_tokens(row: dict[str, Any]) -> int:
    """Tokens of KV, also of a server that refused a length."""
    return int(row.get("kv_tokens") or row["longest_that_fits"])


def predictions() -> list[dict[str, Any]]:
    """What Corral says of each setting of two GPUs: of one rank, and of its GPU."""
    found = []
    for setting in TWO_GPU_SETTINGS:
        row = asdict(setting) | {
            "gpu_mib": H200_MIB,
            "max_num_batched_tokens": 8192,
            "max_num_seqs": 1024,
        }
        weights, tokens = predicted(row)
        need, _ = _count(MODELS[setting.model], row).need.gpus
        found.append(
            {
                "name": setting.name,
                "weights_gib": round(weights, 4),
                "kv_tokens": tokens,
                "held_mib": need.total_mib + DRIVER_MIB,
            }
        )
    return found


def _one_gpu() -> None:
    print(_HEAD)
    for row in read_rows():
        weights, tokens = predicted(row)
        _line(row["name"], *_beside(row["weights_gib"], weights, 2), *_tokens(row, tokens))


def _two_gpus(path: Path) -> None:
    """Of several ranks the one with most weights, the engine with the smallest cache."""
    before = {row["name"]: row for row in read_rows(PREDICTED)}
    now = {row["name"]: row for row in predictions()}
    print(_TWO_GPU_HEAD)
    for row in read_rows(path):
        name = row["name"]
        cells = []
        for key, said, digits in (
            ("weights_gib", max(row["rank_weights_gib"]), 2),
            ("kv_tokens", reported_tokens(row), 0),
            ("held_mib", max(row["held_after_requests_mib_by_gpu"]), 0),
        ):
            cells.append(f"{said:,.{digits}f}")
            cells += [_error(said, predicted[name][key]) for predicted in (before, now)]
        _line(name, *cells)


def _tokens(row: dict[str, Any], tokens: int) -> tuple[str, str, str]:
    return _beside(reported_tokens(row), tokens, 0)


def _beside(said: float, predicted: float, digits: int) -> tuple[str, str, str]:
    """What was said, what was predicted, and the error of the prediction."""
    return f"{said:,.{digits}f}", f"{predicted:,.{digits}f}", _error(said, predicted)


def _error(said: float, predicted: float) -> str:
    return f"{100 * (predicted / said - 1):+.2f}%"


def _line(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |")


def main() -> None:
    """Print a table, or the predictions."""
    match sys.argv[1:]:
        case []:
            _one_gpu()
        case ["--predict"]:
            for row in predictions():
                print(json.dumps(row))
        case [path]:
            _two_gpus(Path(path))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
