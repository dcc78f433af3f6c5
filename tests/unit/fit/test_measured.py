"""Fit against what llama.cpp itself counted and held on an H200, every row of it.

h200-memory.jsonl and h200-compute.csv are llama-fit-params' count, whole MiB rounded down;
h200-runs.jsonl and h200-servers.csv are what running servers held.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pytest

from corral.catalog.profile import Profile
from corral.fit.devices import devices
from corral.fit.estimate import Estimate, Need, estimate
from corral.fit.kv_cache import kv_bytes
from corral.plan.placement import ResolvedPlacement
from tests.unit.fit_samples import (
    AIR,
    DEEPSEEK,
    DENSE,
    FLASH,
    GLM,
    H200_MIB,
    LLAMA_CPP,
    MIB,
    SHARED_DATA,
    measured_rows,
    model,
    placement,
    profile,
    shape_of,
)

pytestmark = pytest.mark.slow


class Counted(NamedTuple):
    """MiB of the GPU and of the host."""

    weights: tuple[int, int]
    kv: tuple[int, int]
    compute: tuple[int, int]


def memory_rows() -> list[dict[str, Any]]:
    lines = (SHARED_DATA / "h200-memory.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def off_by_more_than_a_mib(found: Estimate, counted: Counted) -> bool:
    gpu = found.gpus[0] if found.gpus else Need()
    pairs = [
        (gpu.weights_bytes, counted.weights[0]),
        (found.host.weights_bytes, counted.weights[1]),
        (gpu.kv_bytes, counted.kv[0]),
        (found.host.kv_bytes, counted.kv[1]),
    ]
    return any(abs(size_bytes / MIB - mib) > 1 for size_bytes, mib in pairs)


def total_is_off(found: Estimate, counted: Counted) -> bool:
    """Under by more than 64 MiB, or over by more than 5% and 512 MiB; without CUDA's own."""
    (gpu,) = found.gpus
    predicted_mib = (gpu.total_bytes - gpu.runtime_bytes) / MIB
    total_mib = counted.weights[0] + counted.kv[0] + counted.compute[0]
    return not total_mib - 64 <= predicted_mib <= total_mib * 1.05 + 512


def of_memory_row(row: Mapping[str, Any]) -> tuple[Estimate, Counted]:
    asked = profile(
        context_tokens_per_slot=row["ctx"] // row["parallel"],
        slots=row["parallel"],
        kv_type_k=row["cache_type"],
        kv_type_v=row["cache_type"],
        ubatch_tokens=row["ubatch"],
        flash_attention=row["flash_attn"],
    )
    placed = placement(gpu_layers=row["gpu_layers"], cpu_moe_layers=row["n_cpu_moe"])
    parts = [
        (row["mib"]["CUDA0"][part], row["mib"]["Host"][part])
        for part in ("model", "context", "compute")
    ]
    return on_h200(row["model"], asked, placed, row["ubatch"]), Counted(*parts)


def of_compute_row(row: Mapping[str, str]) -> tuple[Estimate, Counted]:
    slots, layers, flags = int(row["slots"]), row["gpu_layers"], row["flags"].split()
    asked = profile(
        context_tokens_per_slot=int(row["context_tokens"]) // slots,
        slots=slots,
        kv_type_k=row["kv_type_k"],
        kv_type_v=row["kv_type_v"],
        ubatch_tokens=int(row["ubatch_tokens"]),
        flash_attention=row["flash_attention"] == "on",
        kv_on_gpu="-nkvo" not in flags,
    )
    placed = placement(
        gpu_layers="all" if layers == "all" else int(layers),
        cpu_moe_layers=int(row["cpu_moe_layers"]),
        experts_on_cpu="-cmoe" in flags,
        tensor_overrides=tuple(flags[1:]) if "-ot" in flags else (),
    )
    parts = [
        (int(row[f"gpu_{part}_mib"]), int(row[f"host_{part}_mib"]))
        for part in ("weights", "kv", "compute")
    ]
    return on_h200(row["model"], asked, placed, int(row["outputs_per_batch"])), Counted(*parts)


def on_h200(name: str, asked: Profile, placed: ResolvedPlacement, outputs: int | None) -> Estimate:
    return estimate(
        model(name), asked, placed, gpu_memory_mib=[H200_MIB], outputs_per_batch=outputs
    )


def test_every_row_of_the_shared_measurements_is_met() -> None:
    rows = [row for row in memory_rows() if row["model"] != GLM]
    assert len(rows) == 31
    for row in rows:
        found, counted = of_memory_row(row)
        assert not off_by_more_than_a_mib(found, counted), row
        assert not total_is_off(found, counted), row


def test_the_context_of_glm_4_7_is_met() -> None:
    """No header came with that row: its weights are of a mix that is not known here."""
    (row,) = [row for row in memory_rows() if row["model"] == GLM]
    # "auto" is four slots that share one cache.
    asked = profile(context_tokens_per_slot=row["ctx"] // 4, slots=4)
    rules = devices(placement(), blocks=93, gpu_memory_mib=[H200_MIB])
    assert kv_bytes(shape_of(GLM), asked, rules, LLAMA_CPP) == {
        0: row["mib"]["CUDA0"]["context"] * MIB
    }


@pytest.mark.parametrize(
    ("name", "rows"), [(AIR, 135), (DENSE, 89), (GLM, 141), (FLASH, 127), (DEEPSEEK, 114)]
)
def test_every_row_of_our_own_measurements_is_met(name: str, rows: int) -> None:
    measured = measured_rows("h200-compute.csv", name)
    assert len(measured) == rows
    for row in measured:
        found, counted = of_compute_row(row)
        assert not off_by_more_than_a_mib(found, counted), row
        # Without layers on GPUs our servers get none to open; the tool still computed on one.
        assert row["gpu_layers"] == "0" or not total_is_off(found, counted), row


def servers() -> Iterator[tuple[str, list[str], int]]:
    """Model, arguments, and MiB held after a prompt of 1000 tokens."""
    for row in measured_rows("h200-servers.csv"):
        yield row["model"], row["arguments"].split(), int(row["after_1k_prompt_mib"])
    for line in (SHARED_DATA / "h200-runs.jsonl").read_text().splitlines():
        run = json.loads(line)
        # What `--fit on` placed where is not on record.
        if "-fitt" not in run["args"]:
            yield run["model"], run["args"], run["vram_mib_after_1k_prompt"]


def of_server(name: str, arguments: list[str]) -> Estimate:
    def given(flag: str, usual: str) -> str:
        return arguments[arguments.index(flag) + 1] if flag in arguments else usual

    slots, override = int(given("-np", "1")), given("-ot", "")
    asked = profile(
        context_tokens_per_slot=int(given("-c", "")) // slots,
        slots=slots,
        kv_type_k=given("-ctk", "f16"),
        kv_type_v=given("-ctv", "f16"),
        ubatch_tokens=int(given("-ub", "512")),
    )
    placed = placement(
        gpu_layers=int(given("-ngl", "")),
        cpu_moe_layers=int(given("-ncmoe", "0")),
        tensor_overrides=(override,) if override else (),
    )
    return on_h200(name, asked, placed, None)


def test_running_servers_held_what_was_predicted_within_three_percent() -> None:
    measured = list(servers())
    assert len(measured) == 14
    for name, arguments, held_mib in measured:
        (gpu,) = of_server(name, arguments).gpus
        assert abs(gpu.total_bytes / MIB - held_mib) < 0.03 * held_mib, arguments
        assert gpu.total_bytes / MIB > held_mib - 64, arguments
