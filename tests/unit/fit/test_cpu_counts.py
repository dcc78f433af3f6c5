"""Fit against what both engines' servers themselves reported on the CPU, every row of it.

cpu-compute.csv is written by lab/count_cpu.py: models cut to a few blocks, MiB of the KV caches and
compute buffers of all contexts, and the tensors that ik_llama.cpp made at load.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from corral.catalog.entries import EngineKind
from corral.catalog.profile import Profile
from corral.fit.estimate import Need, estimate
from corral.fit.gguf import parse_header
from corral.fit.latent import made_at_load, mode_of
from corral.fit.model import ModelFile, model_file
from corral.plan.placement import ResolvedPlacement
from lab.count_cpu import MADE, small_file
from tests.unit.fit_samples import MIB, SHARED_DATA, measured_rows, profile

pytestmark = pytest.mark.slow
ROWS = measured_rows("cpu-compute.csv")
MODELS = sorted({(row["engine"], row["model"]) for row in ROWS})
ROWS_COUNT = 294
KINDS: dict[str, EngineKind] = {"llama.cpp": "llama.cpp", "ik_llama.cpp": "ik_llama.cpp"}


@cache
def cut(name: str) -> ModelFile:
    with TemporaryDirectory() as folder:
        path = small_file(name, SHARED_DATA, Path(folder))
        with path.open("rb") as file:
            return model_file([parse_header(file.read(16 * MIB))])


def asked(row: dict[str, str]) -> Profile:
    slots = int(row["slots"])
    return profile(
        context_tokens_per_slot=int(row["context_tokens"]) // slots,
        slots=slots,
        kv_type_k=row["kv_type"],
        kv_type_v=row["kv_type"],
        ubatch_tokens=int(row["ubatch_tokens"]),
        flash_attention=row["flash_attention"] == "on",
        mla_mode=int(row["mla_mode"]) if row["mla_mode"] else None,
        attention_max_batch_mib=int(row["attention_max_batch_mib"]) or None,
        mtp_draft_tokens=int(row["mtp_draft_tokens"]) or None,
    )


def rows_of(engine: str, name: str) -> list[dict[str, str]]:
    return [row for row in ROWS if (row["engine"], row["model"]) == (engine, name)]


def host_need(row: dict[str, str]) -> Need:
    nowhere = ResolvedPlacement(gpu_layers=0)
    kind = KINDS[row["engine"]]
    return estimate(cut(row["model"]), asked(row), nowhere, kind=kind, gpu_memory_mib=[]).host


def test_every_mode_of_latent_attention_is_among_the_rows() -> None:
    modes = {row["mla_mode"] for row in rows_of("ik_llama.cpp", "GLM-4.7-Flash")}
    assert modes == {"", "0", "1", "2", "3"}
    assert len(ROWS) == ROWS_COUNT


@pytest.mark.parametrize(("engine", "name"), MODELS)
def test_the_kv_cache_is_exactly_that_of_the_server(engine: str, name: str) -> None:
    for row in rows_of(engine, name):
        assert host_need(row).kv_bytes / MIB == pytest.approx(float(row["kv_mib"]), abs=0.01), row


@pytest.mark.parametrize(("engine", "name"), MODELS)
def test_compute_is_bounded_closely(engine: str, name: str) -> None:
    for row in rows_of(engine, name):
        counted, found = float(row["compute_mib"]), host_need(row).compute_bytes / MIB
        assert counted - 2 <= found <= counted * 1.25 + 192, (row, found)


@pytest.mark.parametrize("name", sorted(MADE))
def test_what_is_made_at_load_has_the_shapes_of_the_log(name: str) -> None:
    model = cut(name)
    assert model.shape
    assert model.shape.mla
    for row in rows_of("ik_llama.cpp", name):
        made = made_at_load(model.tensors, model.shape.mla, model.shape.heads, mode_of(asked(row)))
        first = [" x ".join(map(str, t.shape)) for t in made if t.name.startswith("blk.0.")]
        logged = [part.split(" ", 1)[1] for part in row["computed_tensors"].split("; ") if part]
        # A server that is stopped may end before these lines are in its log.
        assert not logged or sorted(first) == sorted(logged), row
