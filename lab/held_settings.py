"""Write what lab/measure_held.py needs on a machine with GPUs and without Corral.

    python -m lab.held_settings --headers DIR --sources DIR --out .gpu

Sources has ``llama.cpp.tar.xz`` and ``ik_llama.cpp.tar.xz``, the trees of the pinned commits. The
arguments are exactly those that a deploy would write; the memory is what ``corral fit`` says.
"""

from __future__ import annotations

import json
import lzma
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from corral.catalog.entries import EngineKind
from corral.catalog.profile import Profile
from corral.engines import engine_module, resolve_placement
from corral.engines.flag_table import Settings
from corral.fit.estimate import MIB, estimate
from corral.fit.gguf import parse_header
from corral.fit.host import even_split
from corral.fit.model import model_file
from corral.plan.instance import Endpoint
from corral.planning.load import read_catalog
from corral.project import project_root
from lab.cut_headers import cut_header
from lab.model_headers import (
    DEEPSEEK_V2_5,
    GLM_4_7_FLASH,
    GLM_5,
    GLM_5_2,
    Shape,
    write_header,
)

_H200_MIB = 143771
_HEADER_BYTES = 32 * MIB
_ENGINES: tuple[EngineKind, ...] = ("ik_llama.cpp", "llama.cpp")
_FIXED = {"model": "m", "quant": "q", "engine": "e", "slots": 1, "prompt_cache_mib": 0}


@dataclass(frozen=True)
class Server:
    """One setting; ``prompts``: tokens of each prompt, so that the cache is used to its end."""

    name: str
    engine: EngineKind
    model: str
    profile: dict[str, Any]
    gpus: int = 1
    prompts: tuple[int, ...] = ()
    more_flags: tuple[str, ...] = field(default=("--no-warmup",))


def _made(shape: Shape) -> Callable[[Path, Path], object]:
    return lambda path, _: write_header(path, shape)


def _cut(name: str, *blocks: int) -> Callable[[Path, Path], object]:
    packed = f"{name}.gguf-header.xz"
    return lambda path, headers: cut_header(headers / packed, path, blocks=blocks)


MODELS: dict[str, Callable[[Path, Path], object]] = {
    "flash": _made(replace(GLM_4_7_FLASH, blocks=47, mtp_blocks=0)),
    "v25-old": _made(
        replace(
            DEEPSEEK_V2_5, blocks=6, key_length_mla=0, value_length_mla=0, kv_heads=128,
            key_length=192, value_length=128,
        )
    ),
    "glm-5": _made(replace(GLM_5, blocks=6, mtp_blocks=0)),
    "glm-5.2": _made(replace(GLM_5_2, blocks=6, mtp_blocks=0)),
    "air-12": _cut("GLM-4.5-Air", *range(12)),
    "air-8-mtp": _cut("GLM-4.5-Air", *range(8), 46),
    "dense-8": _cut("GLM-4-32B-0414", *range(8)),
}  # fmt: skip
_Q8_0 = {"kv_type_k": "q8_0", "kv_type_v": "q8_0"}
_IK: EngineKind = "ik_llama.cpp"
SERVERS = (
    Server("Flash, 65536", _IK, "flash", {"context_tokens_per_slot": 65536}, prompts=(65000,)),
    Server(
        "Flash, 65536, attention_max_batch_mib 512", _IK, "flash",
        {"context_tokens_per_slot": 65536, "attention_max_batch_mib": 512}, prompts=(65000,),
    ),
    Server(
        "Flash, 32768, q8_0", _IK, "flash", {"context_tokens_per_slot": 32768, **_Q8_0},
        prompts=(32000,),
    ),
    Server(
        "Flash, 16384, mla_mode 0", _IK, "flash",
        {"context_tokens_per_slot": 16384, "mla_mode": 0}, prompts=(16000,),
    ),
    Server(
        "Flash, 16384, mla_mode 1, no flash attention", _IK, "flash",
        {"context_tokens_per_slot": 16384, "mla_mode": 1, "flash_attention": False},
        prompts=(16000,),
    ),
    Server(
        "Flash, 4 slots of 16384", _IK, "flash",
        {"context_tokens_per_slot": 16384, "slots": 4}, prompts=(16000,),
    ),
    Server(
        "V2.5 of 6 blocks with attn_kv_b, 32768", _IK, "v25-old",
        {"context_tokens_per_slot": 32768}, prompts=(32000,),
    ),
    Server(
        "GLM-5 of 6 blocks, 65536", "llama.cpp", "glm-5",
        {"context_tokens_per_slot": 65536}, prompts=(60000,),
    ),
    Server(
        "GLM-5.2 of 6 blocks, 131072, q8_0", "llama.cpp", "glm-5.2",
        {"context_tokens_per_slot": 131072, **_Q8_0}, prompts=(60000,),
    ),
    Server(
        "GLM-5 of 6 blocks, 32768", _IK, "glm-5",
        {"context_tokens_per_slot": 32768}, prompts=(32000,),
    ),
    Server(
        "Air of 12 blocks, cpu_moe_layers 6, two GPUs", _IK, "air-12",
        {"context_tokens_per_slot": 16384, "cpu_moe_layers": 6, "split_mode": "layer", **_Q8_0},
        gpus=2, prompts=(8000,),
    ),
    Server(
        "Air of 12 blocks, cpu_moe_layers 6", _IK, "air-12",
        {"context_tokens_per_slot": 16384, "cpu_moe_layers": 6, **_Q8_0}, prompts=(8000,),
    ),
    Server(
        "Air of 8 blocks, MTP, 2 slots of 32768", _IK, "air-8-mtp",
        {"context_tokens_per_slot": 32768, "slots": 2, "mtp_draft_tokens": 2, **_Q8_0},
        prompts=(30000,),
    ),
    Server(
        "Air of 8 blocks, MTP, 131072", "llama.cpp", "air-8-mtp",
        {"context_tokens_per_slot": 131072, "mtp_draft_tokens": 2, **_Q8_0}, prompts=(60000,),
    ),
    Server(
        "GLM-4-32B of 8 blocks, CPU, 5120", _IK, "dense-8",
        {"context_tokens_per_slot": 5120, "placement": "cpu", **_Q8_0}, gpus=0, prompts=(512,),
    ),
    Server(
        "GLM-4-32B of 8 blocks, CPU, 5120", "llama.cpp", "dense-8",
        {"context_tokens_per_slot": 5120, "placement": "cpu", **_Q8_0}, gpus=0, prompts=(512,),
        more_flags=("--no-warmup", "--verbosity", "4"),
    ),
)  # fmt: skip


@click.command()
@click.option("--headers", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--sources", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(headers: Path, sources: Path, out: Path) -> None:
    """Write settings.json, packed headers and sources to a folder."""
    out.mkdir(exist_ok=True)
    servers = []
    with tempfile.TemporaryDirectory() as folder:
        for name, write in MODELS.items():
            path = Path(folder) / name
            write(path, headers)
            with path.open("rb") as file:
                start = file.read(_HEADER_BYTES)
            header = parse_header(start)
            packed = lzma.compress(start[: header.data_start_bytes])
            (out / f"{name}.xz").write_bytes(packed)
            for server in SERVERS:
                if server.model == name:
                    servers.append(_described(server, path.stat().st_size, start))
    order = [server.name for server in SERVERS]
    servers.sort(key=lambda server: order.index(server["name"]))
    engines = [described_engine(kind) for kind in _ENGINES]
    for engine in engines:
        shutil.copy(sources / engine["archive"], out)
    text = json.dumps({"engines": engines, "servers": servers}, indent=1)
    (out / "settings.json").write_text(text)


def _described(server: Server, file_bytes: int, start: bytes) -> dict[str, Any]:
    profile = Profile.model_validate({**_FIXED, **server.profile})
    placement = resolve_placement(profile, gpus=server.gpus)
    placement = even_split(placement, profile, server.gpus)
    model = model_file([parse_header(start)])
    memory = [_H200_MIB] * server.gpus
    need = estimate(model, profile, placement, kind=server.engine, gpu_memory_mib=memory)
    predicted = [gpu.total_bytes // MIB for gpu in need.gpus]
    if not server.gpus:
        predicted = [(need.host.kv_bytes + need.host.compute_bytes) // MIB]
    settings = Settings(
        profile=profile, placement=placement, model="{model}", alias="measured",
        endpoint=Endpoint(address="127.0.0.1", port=18080), key_file="{keys}",
    )  # fmt: skip
    return {
        "name": server.name,
        "engine": server.engine,
        "model": server.model,
        "file_bytes": file_bytes,
        "gpus": server.gpus,
        "argv": list(engine_module(server.engine).argv("{program}", settings)),
        "more_flags": list(server.more_flags),
        "prompts": list(server.prompts),
        "predicted_mib": predicted,
        "parts_mib": [
            [
                part // MIB
                for part in (g.weights_bytes, g.kv_bytes, g.compute_bytes, g.runtime_bytes)
            ]
            for g in (*need.gpus, need.host)
        ],
    }


def described_engine(kind: EngineKind) -> dict[str, Any]:
    """How lab/measure_held.py builds an engine from the archive of its sources."""
    entry = read_catalog(project_root()).engines[kind]
    options = engine_module(kind).cmake_options(
        entry, backend="cuda", cuda_architectures="90", kv_pairs={("f16", "f16"), ("q8_0", "q8_0")}
    )
    return {"name": kind, "archive": f"{kind}.tar.xz", "cmake_options": options}


if __name__ == "__main__":
    main()
