"""What llama.cpp's server counts for the encoder of images on the CPU, for projectors of GLM.

    python -m lab.count_projector --llama-cpp BIN > tests/data/projector-compute.csv

The server reserves the encoder's buffers at its start, for an image of 46 x 46 tokens, and logs
their size. Projectors have a few blocks without weights, beside a model of two: the buffers do not
depend on the number of blocks.
"""

from __future__ import annotations

import csv
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click

from lab.count_cpu import logged
from lab.model_headers import GLM_4_7_FLASH, write_header
from lab.projector_headers import GLM_4_6V_FLASH, ProjectorShape, write_projector

NAMES = ("embedding", "feed_forward", "merger", "output", "heads", "patch")
_COMPUTE = re.compile(r"reserve_compute_meta: +CPU compute buffer size = +([0-9.]+) MiB")


def shapes() -> Iterator[ProjectorShape]:
    """The published tower, and others in which another part is the widest."""
    flash = replace(GLM_4_6V_FLASH, blocks=2)
    yield flash
    yield replace(flash, feed_forward=13696)
    yield replace(flash, merger=40960)
    yield replace(flash, feed_forward=1536, merger=4096)
    yield replace(flash, embedding=1024, heads=16, output=1536, merger=4608)
    yield replace(flash, patch=16)


@click.command()
@click.option("--llama-cpp", type=click.Path(path_type=Path, exists=True), required=True)
def main(llama_cpp: Path) -> None:
    """Count every shape, with flash attention and without, and print the rows."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([*NAMES, "flash_attention", "compute_mib"])
    with tempfile.TemporaryDirectory() as folder:
        for shape in shapes():
            for flash_attention in ("on", "off"):
                counted = _counted(llama_cpp, Path(folder), shape, flash_attention)
                writer.writerow([*(getattr(shape, n) for n in NAMES), flash_attention, counted])
                sys.stdout.flush()


def _counted(programs: Path, folder: Path, shape: ProjectorShape, flash_attention: str) -> str:
    model, projector = folder / "model.gguf", folder / "mmproj.gguf"
    # The projector must have the width of the model.
    small = replace(GLM_4_7_FLASH, blocks=2, mtp_blocks=0, experts=8, embedding=shape.output)
    write_header(model, small)
    write_projector(projector, shape)
    argv = [str(programs / "llama-server"), "--model", str(model), "--mmproj", str(projector)]
    argv += ["--ctx-size", "512", "--parallel", "1", "--flash-attn", flash_attention]
    log = logged([*argv, "--fit", "off", "--cache-ram", "0", "--verbosity", "4"], folder)
    return f"{float(_COMPUTE.findall(log)[-1]):.2f}"


if __name__ == "__main__":
    main()
