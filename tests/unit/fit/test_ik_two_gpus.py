"""Fit of ik_llama.cpp against what running servers held on two H200s, every row of it.

ik-h200x2-servers.csv: GLM-4.5-Air cut to its first blocks, as docs/measurements/engines-h200.md
says; context 32768, KV in q8_0, micro-batches of 1024.
"""

from __future__ import annotations

import pytest

from corral.fit.devices import block_of
from corral.fit.estimate import Estimate, estimate
from corral.fit.gguf import Header
from corral.fit.model import ModelFile, model_file
from tests.unit.fit_samples import H200_MIB, MIB, header, measured_rows, placement, profile

ROWS = measured_rows("ik-h200x2-servers.csv")


def cut(name: str, blocks: int) -> ModelFile:
    """The first blocks of a model."""
    whole = header(name)
    keys = {"glm4moe.block_count": blocks, "glm4moe.nextn_predict_layers": 0}
    tensors = tuple(t for t in whole.tensors if (block_of(t.name) or 0) < blocks)
    return model_file([Header(3, {**whole.metadata, **keys}, tensors, 32, whole.file_bytes)])


def predicted(row: dict[str, str], gpus: int) -> Estimate:
    asked = profile(
        kv_type_k="q8_0", kv_type_v="q8_0", batch_tokens=2048, ubatch_tokens=1024,
        split_mode=row["split_mode"],
    )  # fmt: skip
    return estimate(
        cut(row["model"], int(row["blocks"])),
        asked,
        placement(tensor_split=(1.0,) * gpus if gpus > 1 else ()),
        kind="ik_llama.cpp",
        gpu_memory_mib=[H200_MIB] * gpus,
    )


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["split_mode"])
def test_each_gpu_held_no_more_than_was_predicted_and_nearly_that(row: dict[str, str]) -> None:
    held = [int(row[f"gpu{n}_mib_after_1k_prompt"]) for n in (0, 1)]
    held = [mib for mib in held if mib]
    found = [need.total_bytes / MIB for need in predicted(row, len(held)).gpus]
    for mib, wanted in zip(found, held, strict=True):
        assert wanted - 64 <= mib <= wanted * 1.05 + 512, (found, held)


def test_weights_of_mode_graph_are_those_of_the_servers_log() -> None:
    """Its buffers CUDA_Split, of both GPUs, and CUDA1 in MiB."""
    (row,) = [row for row in ROWS if row["split_mode"] == "graph"]
    found = sum(need.weights_bytes for need in predicted(row, 2).gpus)
    assert found / MIB == pytest.approx(8607.65 + 485.64, abs=1)
