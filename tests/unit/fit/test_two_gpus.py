"""Fit over two GPUs against what llama.cpp counted and held on two H200s, every row of it.

h200x2-compute.csv is llama-fit-params' count of GLM-4.5-Air and GLM-4-32B, split evenly where the
flags say nothing; h200x2-servers.csv is what running servers held.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

from corral.fit.estimate import Estimate, estimate
from tests.unit.fit_samples import (
    AIR,
    DENSE,
    H200_MIB,
    MIB,
    measured_rows,
    model,
    placement,
    profile,
)

DEVICES = ("gpu0", "gpu1", "host")


class Miss(NamedTuple):
    """A figure that is off: which row, which device, what was predicted and what was counted."""

    row: str
    device: str
    predicted_mib: float
    counted_mib: int


def predicted(row: dict[str, str], *, outputs: int | None = None) -> Estimate:
    flag, *values = row["flags"].split() or [""]
    slots = int(row["slots"])
    asked = profile(
        context_tokens_per_slot=int(row["context_tokens"]) // slots,
        slots=slots,
        kv_type_k=row["kv_type"],
        kv_type_v=row["kv_type"],
        ubatch_tokens=int(row["ubatch_tokens"]),
        kv_on_gpu=flag != "-nkvo",
    )
    layers = row.get("gpu_layers", "all")
    where = placement(
        gpu_layers=layers if layers == "all" else int(layers),
        experts_on_cpu=flag == "-cmoe",
        cpu_moe_layers=int(row["cpu_moe_layers"]),
        tensor_overrides=tuple(values) if flag == "-ot" else (),
        tensor_split=tuple(map(float, values)) if flag == "-ts" else (),
    )
    return estimate(
        model(row["model"]),
        asked,
        where,
        gpu_memory_mib=[H200_MIB, H200_MIB],
        outputs_per_batch=outputs,
    )


def counted_rows(name: str) -> list[tuple[dict[str, str], Estimate]]:
    found = measured_rows("h200x2-compute.csv", name)
    return [(row, predicted(row, outputs=int(row["outputs_per_batch"]))) for row in found]


@pytest.mark.parametrize(("name", "count"), [(AIR, 38), (DENSE, 32)])
def test_weights_and_context_are_exact_on_each_device(name: str, count: int) -> None:
    found = counted_rows(name)
    assert len(found) == count
    missed = []
    for row, fit in found:
        for device, need in zip(DEVICES, (*fit.gpus, fit.host), strict=True):
            for part in ("weights", "kv"):
                mib, wanted = getattr(need, f"{part}_bytes") / MIB, int(row[f"{device}_{part}_mib"])
                if not 0 <= round(mib - wanted, 2) <= 1:
                    missed.append(Miss(str(row), f"{device} {part}", mib, wanted))
    assert missed == []


@pytest.mark.parametrize("name", [AIR, DENSE])
def test_totals_are_bounds_and_near(name: str) -> None:
    missed = []
    for row, fit in counted_rows(name):
        for device, need in zip(DEVICES, fit.gpus, strict=False):
            mib = (need.total_bytes - need.runtime_bytes) / MIB
            wanted = sum(int(row[f"{device}_{part}_mib"]) for part in ("weights", "kv", "compute"))
            if not wanted - 64 <= mib <= wanted * 1.05 + 512:
                missed.append(Miss(str(row), device, mib, wanted))
    assert missed == []


@pytest.mark.parametrize("name", [AIR, DENSE])
def test_the_host_s_compute_is_a_bound(name: str) -> None:
    for row, fit in counted_rows(name):
        wanted = int(row["host_compute_mib"])
        assert wanted - 64 <= fit.host.compute_bytes / MIB <= wanted + 512, row


@pytest.mark.parametrize("name", [AIR, DENSE])
def test_running_servers_held_what_was_predicted(name: str) -> None:
    for row in measured_rows("h200x2-servers.csv", name):
        fit = predicted(row)
        for device, need in zip(DEVICES, fit.gpus, strict=False):
            held = int(row[f"{device}_mib_after_1k_prompt"])
            assert need.total_bytes / MIB == pytest.approx(held, rel=0.03), (row, device)
