"""Fit against what servers of both engines held on two H200s, every row of it.

held-h200.csv is printed by lab.measure_servers.table; lab/held_servers.py has the settings.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from corral.fit.devices import block_of
from corral.fit.gguf import Header, parse_header
from lab.held_servers import CUT, MADE, PROJECTORS, SERVERS, Server
from lab.held_settings import described
from lab.projector_headers import write_projector
from tests.headers import made_header
from tests.unit.fit_samples import header, measured_rows

ROWS = measured_rows("held-h200.csv")
SETTINGS = {(server.engine, server.name): server for server in SERVERS}
MIB = 1024**2
# Aims of docs/measurements/fit-h200.md.
TOO_LOW_MIB, TOO_HIGH = 64, 0.03


# Latent attention of ik_llama.cpp: MiB of cache and compute buffer on the first GPU, by its log.
REPORTED = {
    "Flash, 65536": (3384, 3456.15),
    "Flash, 65536, attention_max_batch_mib 512": (3384, 808.15),
    "Flash of 8 blocks, 202752": (1782, 10625.15),
    "Flash of 8 blocks, 202752, attention_max_batch_mib 512": (1782, 784.15),
    "Flash, 16384, mla_mode 0": (15040, 306.5),
    "Flash, 16384, mla_mode 1, no flash attention": (1598, 736.65),
    "Flash, 32768, q8_0": (898, 1744.15),
    "Flash, 65536, two GPUs": (1728, 3456.14),
    "GLM-5 of 6 blocks, 32768": (216, 5508.54),
    "V2.5 of 6 blocks with attn_kv_b, 32768": (216, 6318.34),
}


def test_every_setting_that_was_measured_has_a_row() -> None:
    assert len(ROWS) == 28


@pytest.mark.parametrize("setting", REPORTED)
def test_buffers_of_latent_attention_are_those_that_ik_reported(
    setting: str, tmp_path: Path
) -> None:
    server = SETTINGS["ik_llama.cpp", setting]
    gpu = described(server, headers_of(server, tmp_path))["parts_mib"][0]
    kv_mib, compute_mib = REPORTED[setting]
    assert gpu[1] == kv_mib
    assert gpu[2] >= compute_mib


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['engine']}: {row['setting']}")
def test_each_gpu_held_no_more_than_was_predicted_and_nearly_that(
    row: dict[str, str], tmp_path: Path
) -> None:
    server = SETTINGS[row["engine"], row["setting"]]
    predicted = described(server, headers_of(server, tmp_path))["predicted_mib"]
    for gpu, mib in enumerate(predicted):
        held = int(row[f"gpu{gpu}_mib"])
        assert held - TOO_LOW_MIB <= mib <= held * (1 + TOO_HIGH), (gpu, predicted, row)


def headers_of(server: Server, folder: Path) -> dict[str, Header]:
    """Headers of the files that a server loads."""
    names = [name for name in (server.model, server.projector, server.draft) if name]
    return {name: _header(name, folder) for name in names}


def _header(name: str, folder: Path) -> Header:
    if name in MADE:
        return made_header(MADE[name])
    if name in PROJECTORS:
        path = folder / name
        write_projector(path, PROJECTORS[name])
        with path.open("rb") as file:
            return parse_header(file.read(MIB))
    return _cut(*CUT[name])


def _cut(name: str, blocks: tuple[int, ...]) -> Header:
    """The same as lab/cut_headers.py writes to a file."""
    whole = header(name)
    arch = whole.metadata["general.architecture"]
    number = whole.metadata[f"{arch}.block_count"]
    drafting = whole.metadata.get(f"{arch}.nextn_predict_layers", 0)
    assert isinstance(number, int)
    assert isinstance(drafting, int)
    first = number - drafting
    keys = {
        f"{arch}.block_count": len(blocks),
        f"{arch}.nextn_predict_layers": sum(block >= first for block in blocks),
    }
    numbers = {old: new for new, old in enumerate(blocks)}
    kept = [t for t in whole.tensors if block_of(t.name) is None or block_of(t.name) in numbers]
    tensors = []
    for tensor in kept:
        old = block_of(tensor.name)
        renamed = tensor.name
        if old is not None:
            renamed = renamed.replace(f"blk.{old}.", f"blk.{numbers[old]}.", 1)
        tensors.append(replace(tensor, name=renamed))
    return replace(whole, metadata={**whole.metadata, **keys}, tensors=tuple(tensors))
