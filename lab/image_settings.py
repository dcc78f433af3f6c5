"""Write what lab/measure_image.py needs on a machine with GPUs and without Corral's packages.

    python -m lab.image_settings --headers DIR --base ROOT --out .image

ROOT is the file system of a lab host with apptainer. The commands are those that a unit would have:
the server's by its profile, and what precedes it in an image by the runtime.
"""

from __future__ import annotations

import json
import lzma
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import click

from corral.catalog.profile import Profile
from corral.engines import engine_module, resolve_placement
from corral.engines.flag_table import Settings
from corral.fit.estimate import MIB, estimate
from corral.fit.gguf import Header, parse_header
from corral.fit.model import model_file
from corral.plan.instance import Endpoint
from corral.planning.load import read_catalog
from corral.planning.release import ROOT_PACKAGES
from corral.project import project_root
from corral.runtimes import COMPRESSIONS, Start, runtime_of
from lab.commands import run
from lab.cut_headers import cut_header

_MODEL, _BLOCKS = "GLM-4-32B-0414", 61
_PROFILE = "glm-z1-32b"
_H200_MIB = 143771
# Folders of the release: one that runs from its folder, and the one that is an image.
NATIVE, IMAGE = "/opt/corral/engines/llama.cpp/native", "/opt/corral/engines/llama.cpp/image"
_VARIABLES = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "{gpu}"}
_PROGRAMS = ("usr/bin/apptainer", "usr/bin/squashfuse_ll", "usr/bin/mksquashfs")
_UNPACKER = "usr/bin/unsquashfs"
_FOLDERS = ("etc/apptainer", "usr/lib/x86_64-linux-gnu/apptainer", "var/lib/apptainer")
_STARTER = "usr/lib/x86_64-linux-gnu/apptainer/bin/starter"
# What every distribution has, and what must match its loader.
_NOT_CARRIED = ("linux-vdso", "ld-linux", "libc.so", "libm.so")


@click.command()
@click.option("--headers", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--base", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--blocks", default=_BLOCKS, show_default=True, help="Of the model, to try it out.")
@click.option("--context", default=8192, show_default=True, help="Tokens of the context.")
def main(headers: Path, base: Path, out: Path, blocks: int, context: int) -> None:
    """Write image.json, the model's header and the container program to a folder."""
    out.mkdir(exist_ok=True)
    header, file_bytes = _model(headers, out, blocks)
    text = json.dumps(settings_of(header, file_bytes, context), indent=1)
    (out / "image.json").write_text(text)
    _carry(base, out / "apptainer.tar.xz")


def _model(headers: Path, out: Path, blocks: int) -> tuple[Header, int]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / _MODEL
        cut_header(headers / f"{_MODEL}.gguf-header.xz", path, blocks=range(blocks))
        with path.open("rb") as file:
            start = file.read(32 * MIB)
        header = parse_header(start)
        packed = lzma.compress(start[: header.data_start_bytes])
        (out / "model.xz").write_bytes(packed)
        return header, path.stat().st_size


def settings_of(header: Header, file_bytes: int, context_tokens: int) -> dict[str, Any]:
    """The commands of both ways, and what they need."""
    shipped = read_catalog(project_root()).profiles[_PROFILE]
    changed = {"slots": 1, "context_tokens_per_slot": context_tokens, "prompt_cache_mib": 0}
    profile = Profile.model_validate({**shipped.model_dump(), **changed})
    placement = resolve_placement(profile, gpus=1)
    need = estimate(model_file([header]), profile, placement, gpu_memory_mib=[_H200_MIB])
    module, runtime = engine_module("llama.cpp"), runtime_of("apptainer")

    def argv(folder: str, model: str) -> list[str]:
        settings = Settings(
            profile=profile, placement=placement, model=model, alias="measured", gpus=1,
            endpoint=Endpoint(address="127.0.0.1", port=18080), key_file="{keys}",
        )  # fmt: skip
        return list(module.argv(f"{folder}/bin/{module.program}", settings))

    def before(*, unpacks: bool) -> list[str]:
        start = Start(
            unit="measured", image=f"{IMAGE}/image.squashfs", models="{models}", unpacks=unpacks,
            gpus=True, variables=_VARIABLES, reads=("{keys}",),
        )  # fmt: skip
        return list(runtime.plan(start).command)

    return {
        "file_bytes": file_bytes,
        "predicted_mib": need.gpus[0].total_bytes // MIB,
        "contents": sorted({*ROOT_PACKAGES, *module.packages}),
        "compression": COMPRESSIONS["apptainer"],
        "folders": {"native": NATIVE, "image": IMAGE},
        "variables": _VARIABLES,
        "native": argv(NATIVE, "{models}/model.gguf"),
        "image": argv(IMAGE, runtime.weights("{models}/model.gguf", "{models}")),
        "mounted": before(unpacks=False),
        "unpacked": before(unpacks=True),
    }


def _carry(base: Path, archive: Path) -> None:
    """The container program and those that it starts, with their libraries, from a lab host."""
    programs = (*_PROGRAMS, _UNPACKER, _STARTER)
    libraries = sorted({path for program in programs for path in _libraries(base, program)})
    names = (*_PROGRAMS, _UNPACKER, *_FOLDERS, *libraries)
    packing = ("--use-compress-program", "xz --x86 --lzma2=preset=9e,dict=64MiB")
    # Libraries as files, not as links to versions of them, and in a folder of their own.
    moved = (
        "--dereference",
        "--transform", "s,^lib/x86_64-linux-gnu/,usr/local/lib/,",
        "--transform", "s,^usr/lib/x86_64-linux-gnu/lib,usr/local/lib/lib,",
    )  # fmt: skip
    run(
        ["tar", *packing, "-C", base, *moved, "-cf", archive, *names],
        where=str(archive),
        timeout_seconds=400,
    )


def _libraries(base: Path, program: str) -> list[str]:
    done = subprocess.run(
        ["chroot", base, "ldd", f"/{program}"], check=True, capture_output=True, text=True
    )
    paths = [line.split("=>")[-1].split()[0] for line in done.stdout.splitlines()]
    return [path[1:] for path in paths if not Path(path).name.startswith(_NOT_CARRIED)]


if __name__ == "__main__":
    main()
