"""Models for tests of the fit: real headers, and those that lab/model_headers.py makes."""

from __future__ import annotations

import csv
import lzma
from functools import cache
from typing import Any

from corral.catalog.profile import Profile
from corral.engines import engine_module
from corral.fit.gguf import Header, Tensor, Value, parse_header
from corral.fit.model import ModelFile, model_file
from corral.fit.shape import Shape
from corral.plan.placement import ResolvedPlacement
from lab.model_headers import (
    DEEPSEEK_V2_5,
    GLM_4_7,
    GLM_4_7_FLASH,
    GLM_5,
    GLM_5_2,
    GLM_5_3_FLASH,
)
from tests.headers import made_header
from tests.samples import ROOT

SHARED_DATA = ROOT.parent / "shared" / "data"
TEST_DATA = ROOT / "tests" / "data"
MIB = 1024**2
AIR, DENSE = "GLM-4.5-Air", "GLM-4-32B-0414"
FLASH, DEEPSEEK, GLM = "GLM-4.7-Flash", "DeepSeek-V2.5", "GLM-4.7"
SPARSE, SPARSE_LONG, HYBRID = "GLM-5", "GLM-5.2", "GLM-5.3-Flash"
_MADE = {
    FLASH: GLM_4_7_FLASH,
    DEEPSEEK: DEEPSEEK_V2_5,
    GLM: GLM_4_7,
    SPARSE: GLM_5,
    SPARSE_LONG: GLM_5_2,
    HYBRID: GLM_5_3_FLASH,
}
LLAMA_CPP = engine_module("llama.cpp").memory
IK = engine_module("ik_llama.cpp").memory
H200_MIB, A100_MIB = 143771, 40960


def measured_rows(file: str, name: str | None = None) -> list[dict[str, str]]:
    """Rows of a file of ``tests/data``: all, or those of one model."""
    with (TEST_DATA / file).open(newline="") as text:
        return [row for row in csv.DictReader(text) if name in (None, row.get("model"))]


@cache
def header(name: str) -> Header:
    """The header of a model: a real one of AIR and DENSE, else one that is made."""
    if name in _MADE:
        return made_header(_MADE[name])
    packed = SHARED_DATA / f"{name}.gguf-header.xz"
    return parse_header(lzma.decompress(packed.read_bytes()))


@cache
def model(name: str) -> ModelFile:
    """The same as fit sees it."""
    return model_file([header(name)])


def shape_of(name: str) -> Shape:
    """Its dimensions."""
    found = model(name).shape
    assert found
    return found


def profile(**changes: Any) -> Profile:
    """One slot of 32k; ``changes`` are keys of a profile."""
    usual = {"model": "m", "quant": "q", "engine": "e", "slots": 1, "batch_tokens": 4096}
    return Profile.model_validate({**usual, "context_tokens_per_slot": 32768, **changes})


def placement(**changes: Any) -> ResolvedPlacement:
    """All layers on the GPUs; ``changes`` are fields of ResolvedPlacement."""
    return ResolvedPlacement(**{"gpu_layers": "all", **changes})


def tensor(name: str, *shape: int, type_id: int = 0) -> Tensor:
    """A tensor of f32, or of another type."""
    return Tensor(name, shape, type_id, 0)


def unknown_model() -> ModelFile:
    """GLM-4.5-Air under the name of an architecture that nobody has heard of."""
    real = header(AIR)
    metadata: dict[str, Value] = {"general.architecture": "glm9", "glm9.block_count": 47}
    return model_file([Header(3, metadata, real.tensors, real.data_start_bytes, 32)])
