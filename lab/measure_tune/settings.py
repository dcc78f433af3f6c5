"""Write what ``python3 -m lab.measure_tune`` needs on a machine without Corral's packages.

    python -m lab.measure_tune.settings --headers DIR --out FOLDER [--vram-gib 40] [--cores 16]

DIR has ``GLM-4.5-Air.gguf-header.xz``. FOLDER gets the same and settings.json: all settings of a
grid that `corral tune` could try on a GPU of that size, each with its server's command line as a
deploy would write it. With ``llama.cpp.tar.xz`` beside them, ``lab/measure_held.py build FOLDER``
builds the engine alone.
"""

from __future__ import annotations

import json
import lzma
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import click

from corral.bench.tune.space import KEY_FILE, PORT, Candidate, Space, dimensions_of
from corral.engines import engine_module
from corral.engines.tuning import Dimension, Machine
from corral.errors import CorralError
from corral.fit.gguf import parse_header
from corral.fit.header_file import StoredHeader
from corral.fit.headers import ShardSource, StoredSafetensors
from corral.inventory.hosts import Host, parse_host
from corral.lock.lock_file import Lock, LockedEngine, LockedFile, LockedModel
from corral.paths import HOST_PATHS
from corral.planning.load import read_catalog, requirements_files
from corral.planning.planner import Planner
from corral.project import project_root, templates
from lab.held_settings import described_engine

MODEL, QUANT, PROFILE = "glm-4.5-air", "UD-Q4_K_XL", "glm-4.5-air-realtime"
HEADER = "GLM-4.5-Air.gguf-header.xz"
FILE_BYTES = 82_572_049_696
INSTANCE = "air"
# Of what tune tries the part that decides most, so that the grid can be measured whole.
GRID: Mapping[str, Sequence[str]] = {
    "placement": (
        "whole layers", "one more layer on the host", "last layers on the host", "experts-on-cpu",
    ),
    "micro-batch": ("256", "512", "2048"),
    "threads": ("4", "8", "12"),
}  # fmt: skip
# An answer of one length and a load of one request: a run is little more than a server's start.
REQUESTS = {"lengths": [2048], "answer_tokens": 32, "concurrency": 1, "repeat": 1}
RECIPE = {"placement": "experts-on-cpu"}
_REQUEST_SECONDS = 120
_SHA256 = "0" * 64


@dataclass(frozen=True)
class OneModel:
    """A HeaderSource with the header of one model in one file."""

    header: StoredHeader

    def headers(self, shards: Sequence[ShardSource]) -> list[StoredHeader]:
        """The model's header, whatever is asked for."""
        return [self.header for _ in shards]

    def safetensors(self, shards: Sequence[ShardSource]) -> list[StoredSafetensors]:
        """Raises CorralError."""
        raise CorralError(shards[0].url, "is no GGUF file", "choose a profile of a GGUF file")

    def content(self, file: ShardSource) -> bytes:
        """Raises CorralError."""
        raise CorralError(file.url, "is not read here", "choose a profile of a GGUF file")


def air_space(
    packed: Path,
    *,
    memory_mib: Sequence[int],
    machine: Machine,
    profile: str = PROFILE,
    overrides: Mapping[str, Any] | None = None,
    choices: Mapping[str, Sequence[str]] | None = None,
) -> Space:
    """What tune would try of a profile of GLM-4.5-Air.

    + memory_mib: of each equal GPU; + choices: dimension -> labels of these alone
    """
    planner = air_planner(packed)
    host = air_host(profile, memory_mib, overrides or {})
    plan = planner.plan_host(host)
    (instance,) = plan.instances
    only = [*choices] if choices else ()
    found = dimensions_of(instance, machine, only=only, where=f"{host.name}/{INSTANCE}")
    if choices:
        found = tuple(cut(one, choices[one.name]) for one in found)
    return Space(planner, host, plan, instance, found)


def air_planner(packed: Path) -> Planner:
    """A planner over the shipped catalog, with the real header; nothing is asked of a hub."""
    root = project_root()
    catalog = read_catalog(root)
    entry, engine = catalog.models[MODEL], catalog.engines["llama.cpp"]
    file = LockedFile(path=f"{QUANT}/{MODEL}-{QUANT}.gguf", size_bytes=FILE_BYTES, sha256=_SHA256)
    locked = LockedModel(
        repo=entry.repo,
        requested=entry.revision,
        revision=_SHA256[:40],
        patterns={QUANT: entry.quants[QUANT].files},
        quants={QUANT: (file,)},
    )
    commit = LockedEngine(requested=engine.commit, commit=engine.commit)
    return Planner(
        catalog=catalog,
        lock=Lock(engines={"llama.cpp": commit}, models={MODEL: locked}),
        requirements=requirements_files(root),
        paths=HOST_PATHS,
        templates=templates(root),
        headers=OneModel(StoredHeader(parse_header(lzma.decompress(packed.read_bytes())), _SHA256)),
    )


def air_host(profile: str, memory_mib: Sequence[int], overrides: Mapping[str, Any]) -> Host:
    """A host with equal GPUs of this memory."""
    gpus = {"name": "NVIDIA H200", "count": len(memory_mib), "compute_capability": "9.0"}
    data = {"name": INSTANCE, "profile": profile, "port": 8001, "overrides": dict(overrides)}
    return parse_host("h200", {"gpus": {**gpus, "memory_mib": memory_mib[0]}, "instances": [data]})


def cut(dimension: Dimension, labels: Sequence[str]) -> Dimension:
    """A dimension with some of its choices."""
    choices = tuple(one for one in dimension.choices if one.label in labels)
    return dimension.model_copy(update={"choices": choices})


@click.command()
@click.option("--headers", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--vram-gib", default=40, show_default=True, help="What a setting may use.")
@click.option("--cores", default=16, show_default=True, help="Of the machine.")
def main(headers: Path, out: Path, vram_gib: int, cores: int) -> None:
    """Write settings.json and the packed header to a folder."""
    out.mkdir(parents=True, exist_ok=True)
    machine = Machine(cores=cores, threads=cores, gpus=1, experts=True, drafts=True)
    space = air_space(headers / HEADER, memory_mib=[vram_gib * 1024], machine=machine, choices=GRID)
    shutil.copy(headers / HEADER, out / HEADER)
    document = described(space)
    (out / "settings.json").write_text(json.dumps(document, indent=1) + "\n")
    click.echo(f"{len(document['settings'])} settings")


def described(space: Space) -> dict[str, Any]:
    """All settings of a space that can run, and the requests of each run."""
    engine = engine_module("llama.cpp")
    found = {setting: space.at(setting) for setting in product(*map(range, space.sizes))}
    return {
        "engines": [described_engine("llama.cpp")],
        "header": HEADER,
        "file_bytes": FILE_BYTES,
        "dimensions": [
            {"name": one.name, "choices": [one.current, *(c.label for c in one.choices)]}
            for one in space.dimensions
        ],
        "settings": [
            _setting(setting, space.choices(setting), one)
            for setting, one in found.items()
            if isinstance(one, Candidate)
        ],
        "recipe": space.setting(RECIPE),
        "requests": {
            **REQUESTS,
            "port": PORT,
            "key_file": KEY_FILE,
            "health": engine.routes.health.path,
            "alias": MODEL,
            "fields": dict(engine.load_fields),
            "seconds": _REQUEST_SECONDS,
        },
    }


def _setting(
    setting: Sequence[int], choices: Mapping[str, str], candidate: Candidate
) -> dict[str, Any]:
    argv = list(candidate.argv)
    argv[0], argv[argv.index("--model") + 1] = "{program}", "{model}"
    (gpu,) = candidate.need.gpus
    return {
        "setting": setting,
        "choices": choices,
        "argv": argv,
        "environment": candidate.environment,
        "predicted_mib": gpu.total_mib,
    }


if __name__ == "__main__":
    main()
