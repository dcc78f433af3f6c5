"""Keep of raw rows what a prediction can be compared with.

python -m lab.measure_vllm.rows OUT/rows.jsonl [MORE ...] > docs/measurements/vllm-h200.jsonl

Rows of two GPUs go to a file of their own, docs/measurements/vllm-h200-x2.jsonl.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_SAID = (
    "gpu_mib",
    "free_at_start_gib",
    "requested_gib",
    "weights_gib",
    "activation_peak_gib",
    "other_gib",
    "graphs_estimated_gib",
    "kv_gib",
    "kv_tokens",
    "max_concurrency",
    "longest_that_fits",
    "graphs_gib",
    "graphs_s",
    "attention",
    "load_s",
    "init_s",
    "stop_s",
    "stop_code",
    "stream",
    "exit_code",
    "error",
    "rank",
    "rank_weights_gib",
    "rank_activation_peak_gib",
    "rank_other_gib",
    "rank_beside_kv_gib",
    "rank_requested_gib",
    "kv_blocks_by_engine",
)


def main() -> None:
    """Print the rows whose server said what is left for KV; of one setting the last."""
    rows: dict[str, dict[str, Any]] = {}
    for path in sys.argv[1:]:
        for line in Path(path).read_text().splitlines():
            raw = json.loads(line)
            if raw.get("ready_s") or "longest_that_fits" in raw:
                rows[raw["name"]] = kept(raw)
    for row in rows.values():
        print(json.dumps(row))


def kept(raw: dict[str, Any]) -> dict[str, Any]:
    """One row: the setting, what the server said, and what nvidia-smi said of its process."""
    row: dict[str, Any] = {
        "vllm": "0.24.0",
        "gpu": "H200",
        "name": raw["name"],
        "model": raw["model"],
        "tp": raw.get("tp", 1),
        **_ranks(raw),
        "max_model_len": raw["max_model_len"],
        "mtp_tokens": raw["mtp_tokens"],
        "utilization": raw["utilization"],
        "eager": raw["eager"],
        "kv_dtype": "bf16" if raw["kv_dtype"] == "auto" else raw["kv_dtype"],
        "max_num_batched_tokens": raw["max_num_batched_tokens"] or 8192,
        "max_num_seqs": raw.get("max_num_seqs") or 1024,
        "sampler": raw.get("sampler", "native"),
        "user": raw["user_id"] or 0,
    }
    row |= {key: raw[key] for key in _SAID if key in raw}
    if raw.get("ready_s"):
        row["ready_after_imports_s" if raw["imported_before"] else "ready_s"] = raw["ready_s"]
        row["held_mib"] = raw["held_ready_mib"]
        if len(by_gpu := raw.get("held_ready_mib_by_gpu", [])) > 1:
            row |= {"held_mib_by_gpu": by_gpu}
            row |= {"held_after_requests_mib_by_gpu": raw["held_after_mib_by_gpu"]}
        row["held_after_requests_mib"] = raw["held_after_mib"]
        row["held_by"] = sorted({process["name"] for process in raw["processes_ready"]})
        row["kv_blocks"] = int(raw["cache_config_info"]["num_gpu_blocks"])
    if raw["mtp_tokens"] and raw.get("mtp_drafted") is not None:
        row["mtp_drafted"], row["mtp_accepted"] = raw["mtp_drafted"], raw["mtp_accepted"]
    return row


def _ranks(raw: dict[str, Any]) -> dict[str, Any]:
    """How several ranks share the model; nothing for one."""
    if raw.get("tp", 1) * raw.get("dp", 1) == 1:
        return {}
    return {"dp": raw["dp"], "experts_whole": raw["experts_whole"]}


if __name__ == "__main__":
    main()
