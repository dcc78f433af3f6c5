"""What Corral predicts of vLLM beside what a server reported on an H200, as a table.

    python -m tests.predicted_vllm

Its rows are docs/measurements/vllm-h200.jsonl, of servers that the counting was not fitted to.
"""

from __future__ import annotations

import json
from typing import Any

from corral.catalog.profile import Profile
from corral.engines.memory_count import MemoryCount
from corral.engines.vllm.memory.count import count
from corral.engines.vllm.memory.ranks import Ranks
from corral.engines.vllm.memory.weights import weights_bytes
from corral.model_files.model import SafetensorsModel
from tests.samples import ROOT
from tests.unit.model_dimensions import GLM_4_5_AIR, GLM_4_7_FLASH, model_of

ROWS = ROOT / "docs" / "measurements" / "vllm-h200.jsonl"
MODELS = {
    "GLM-4.5-Air-FP8": model_of(GLM_4_5_AIR, "fp8-channel"),
    "GLM-4.7-Flash": model_of(GLM_4_7_FLASH),
}
_GIB = 1024**3
_HEAD = (
    "| setting | GiB of weights | predicted | error | tokens of KV | predicted | error |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
)


def read_rows() -> list[dict[str, Any]]:
    """The measured servers."""
    return [json.loads(line) for line in ROWS.read_text().splitlines()]


def predicted(row: dict[str, Any]) -> tuple[float, int]:
    """GiB of weights and tokens of KV that Corral counts for a row's server."""
    model = MODELS[row["model"]]
    assert model.dimensions
    mtp = bool(row["mtp_tokens"])
    weights = weights_bytes(model.tensors, model.dimensions, Ranks(tensor=row["tp"]), mtp=mtp)
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
        "eager": row["eager"],
        "mtp_draft_tokens": row["mtp_tokens"] or None,
    }
    if row["kv_dtype"] == "fp8":
        served |= {"kv_type_k": "fp8", "kv_type_v": "fp8"}
    profile = Profile.model_validate(served)
    return count(model, profile, gpu_memory_mib=[row["gpu_mib"]] * row["tp"])


def reported_tokens(row: dict[str, Any]) -> int:
    """Tokens of KV, also of a server that refused a length."""
    return int(row.get("kv_tokens") or row["longest_that_fits"])


def main() -> None:
    """Print the table."""
    print(_HEAD)
    for row in read_rows():
        weights, tokens = predicted(row)
        said = reported_tokens(row)
        cells = (
            row["name"],
            f"{row['weights_gib']:.2f}",
            f"{weights:.2f}",
            f"{100 * (weights / row['weights_gib'] - 1):+.2f}%",
            f"{said:,}",
            f"{tokens:,}",
            f"{100 * (tokens / said - 1):+.2f}%",
        )
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
