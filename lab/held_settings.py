"""Write what lab/measure_servers needs on a machine with GPUs and without Corral.

    python -m lab.held_settings --headers DIR --out FOLDER

Headers has ``GLM-4.5-Air.gguf-header.xz`` and ``GLM-4-32B-0414.gguf-header.xz``. The arguments are
exactly those that a deploy would write; the memory is what ``corral fit`` says.
"""

from __future__ import annotations

import json
import lzma
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from corral.catalog.entries import EngineKind
from corral.catalog.profile import Profile
from corral.engines import engine_module, resolve_placement
from corral.engines.flag_table import Settings
from corral.fit.answer import TargetGpu
from corral.fit.estimate import MIB, Estimate, estimate
from corral.fit.gguf import Header, parse_header
from corral.fit.host import even_split
from corral.fit.model import ModelFile, model_file
from corral.fit.place import place
from corral.fit.projector import read_projector
from corral.plan.instance import Endpoint
from corral.plan.placement import ResolvedPlacement
from corral.planning.load import read_catalog
from corral.project import project_root
from lab import engine_source
from lab.held_servers import CUT, MADE, PROJECTORS, SERVERS, Server, write_model
from lab.held_sources import pack
from lab.layout import Layout

_H200_MIB = 143771
_HEADER_BYTES = 32 * MIB
_ENGINES: tuple[EngineKind, ...] = ("llama.cpp", "ik_llama.cpp")
# Replaced by a free one when the server is started.
_PORT = 18080
_PORTS = {str(_PORT): "{port}"}
_FIXED = {"model": "m", "quant": "q", "engine": "e", "slots": 1, "prompt_cache_mib": 0}
_MORE_FLAGS = {"llama.cpp": ["--no-warmup", "--verbosity", "4"], "ik_llama.cpp": ["--no-warmup"]}


@click.command()
@click.option("--headers", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(headers: Path, out: Path) -> None:
    """Write settings.json, packed headers and sources to a folder."""
    out.mkdir(exist_ok=True)
    found, files = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name in (*MADE, *CUT, *PROJECTORS):
            path = Path(folder) / name
            write_model(name, path, headers)
            with path.open("rb") as file:
                start = file.read(_HEADER_BYTES)
            found[name] = parse_header(start)
            files[name] = path.stat().st_size
            (out / f"{name}.xz").write_bytes(lzma.compress(start[: found[name].data_start_bytes]))
    repositories = Layout.of(project_root()).engine_source
    engine_source.ensure(repositories)
    for kind in _ENGINES:
        pack(kind, repositories, out / f"{kind}.tar.xz")
    settings = {
        "engines": [described_engine(kind) for kind in _ENGINES],
        "files": files,
        "servers": [described(server, found) for server in SERVERS],
    }
    (out / "settings.json").write_text(json.dumps(settings, indent=1))


def described(server: Server, headers: dict[str, Header]) -> dict[str, Any]:
    """A server's arguments, and the memory that is predicted for it."""
    profile = Profile.model_validate({**_FIXED, **server.profile})
    model = _model(server, headers)
    placement, need = predicted(server, profile, model)
    settings = Settings(
        profile=profile, placement=placement, model=_place(server.model), alias="measured",
        endpoint=Endpoint(address="127.0.0.1", port=_PORT), key_file="{keys}", gpus=server.gpus,
        projector=_place(server.projector), draft=_place(server.draft),
    )  # fmt: skip
    argv = engine_module(server.engine).argv("{program}", settings)
    quiet = ["--no-warmup"] if server.quiet else _MORE_FLAGS[server.engine]
    return {
        "name": server.name,
        "round": server.round,
        "engine": server.engine,
        "nccl": server.nccl,
        "files": [name for name in (server.model, server.projector, server.draft) if name],
        "gpus": server.gpus,
        "argv": [_PORTS.get(word, word) for word in argv],
        "more_flags": quiet,
        "prompts": list(server.prompts),
        "answer_tokens": server.answer,
        "image_pixels": server.image,
        "quiet": server.quiet,
        "seconds": server.seconds,
        "placement": placement.summary,
        "budgets_gib": list(server.budgets_gib),
        "predicted_mib": [gpu.total_bytes // MIB for gpu in need.gpus],
        "parts_mib": [
            [
                part // MIB
                for part in (g.weights_bytes, g.kv_bytes, g.compute_bytes, g.runtime_bytes)
            ]
            for g in (*need.gpus, need.host)
        ],
    }


def predicted(
    server: Server, profile: Profile, model: ModelFile
) -> tuple[ResolvedPlacement, Estimate]:
    """The placement, and the need that ``corral fit`` would print for these GPUs."""
    memory = [gib * 1024 for gib in server.budgets_gib] or [_H200_MIB] * server.gpus
    if profile.placement == "auto":
        targets = [TargetGpu(f"GPU {n}", mib) for n, mib in enumerate(memory)]
        budgets = [target.available_mib - profile.gpu_reserve_mib for target in targets]
        placement = place(model, profile, kind=server.engine, budgets_mib=budgets)
    else:
        placement = even_split(resolve_placement(profile, gpus=server.gpus), profile, server.gpus)
    need = estimate(model, profile, placement, kind=server.engine, gpu_memory_mib=memory)
    return placement, need


def _model(server: Server, headers: dict[str, Header]) -> ModelFile:
    model = model_file([headers[server.model]])
    if server.projector:
        model = replace(model, projector=read_projector(headers[server.projector]))
    if server.draft:
        model = replace(model, draft=model_file([headers[server.draft]]))
    return model


def _place(name: str) -> str:
    return f"{{{name}}}" if name else ""


def described_engine(kind: EngineKind) -> dict[str, Any]:
    """How an engine is built from the archive of its sources."""
    entry = read_catalog(project_root()).engines[kind]
    options = engine_module(kind).cmake_options(
        entry, backend="cuda", cuda_architectures="90", kv_pairs={("f16", "f16"), ("q8_0", "q8_0")}
    )
    return {"name": kind, "archive": f"{kind}.tar.xz", "cmake_options": options}


if __name__ == "__main__":
    main()
