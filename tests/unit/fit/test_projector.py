"""A projector: read from its header, counted beside the model, and planned for vision alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from corral.fit.estimate import estimate
from corral.fit.gguf import Header, Value, parse_header
from corral.fit.projector import BadProjectorError, Projector, read_projector
from lab.count_projector import NAMES
from lab.projector_headers import GLM_4_6V_FLASH, write_projector
from tests.unit.fit_samples import (
    A100_MIB,
    DENSE,
    measured_rows,
    model,
    placement,
    profile,
    tensor,
)

MIB = 1024**2
KEYS: dict[str, Value] = {
    "general.architecture": "clip",
    "clip.vision.embedding_length": 1536,
    "clip.vision.feed_forward_length": 13696,
    "clip.vision.attention.head_count": 12,
    "clip.vision.patch_size": 14,
}


def header(**changes: Value | None) -> Header:
    named = {name.replace("__", "."): value for name, value in changes.items()}
    keys = {name: value for name, value in {**KEYS, **named}.items() if value is not None}
    return Header(3, keys, (tensor("v.patch_embd.weight", 1024, 1024),), 4096, 32)


def test_a_projector_is_read_with_the_usual_merge() -> None:
    assert read_projector(header()) == Projector(
        file_bytes=4096 + 4 * MIB, embedding=1536, feed_forward=13696, merger=13696, output=1536,
        heads=12, patch=14, merge=2,
    )  # fmt: skip
    assert read_projector(header(**{"clip__vision__spatial_merge_size": 1})).merge == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"general__architecture": "glm4"}, 'its architecture is "glm4", not "clip"'),
        ({"clip__vision__patch_size": None}, "no usable clip.vision.patch_size"),
        ({"clip__vision__embedding_length": 0}, "no usable clip.vision.embedding_length"),
        ({"clip__vision__embedding_length": "x"}, "no usable clip.vision.embedding_length"),
        ({"clip__vision__attention__head_count": 2**40}, "no usable"),
    ],
)
def test_another_file_is_no_projector(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadProjectorError, match="no") as caught:
        read_projector(header(**changes))
    assert said in str(caught.value)


def test_it_is_counted_on_the_first_gpu_or_on_the_host() -> None:
    seeing = replace(model(DENSE), projector=read_projector(header()))
    for gpus, placed in ((2, placement()), (0, placement(gpu_layers=0))):
        found, without = (
            estimate(of, profile(vision=True), placed, gpu_memory_mib=[A100_MIB] * gpus)
            for of in (seeing, model(DENSE))
        )
        one, other = (f.gpus[0] if gpus else f.host for f in (found, without))
        assert one.weights_bytes - other.weights_bytes == 4096 + 4 * MIB
        assert one.compute_bytes > other.compute_bytes
        assert found.gpus[1:] == without.gpus[1:]
        assert not gpus or found.host == without.host


def test_the_bound_grows_with_the_image_and_has_scores_without_flash_attention() -> None:
    found = read_projector(header())
    small, large = (found.compute_bytes(profile(vision=True, image_tokens=n)) for n in (3000, 6000))
    assert large == 2 * small
    patches = 4 * 3000
    assert small == 4 * patches * (4 * 1536 + 3 * 13696 + 3 * 14**2)
    asked = profile(vision=True, image_tokens=3000, flash_attention=False)
    assert found.compute_bytes(asked) == 4 * patches * (6 * 1536 + 12 * patches + 3 * 14**2)


def test_buffers_are_reserved_for_an_image_of_46_by_46_tokens_where_less_is_asked() -> None:
    found = read_projector(header())
    one, other = (found.compute_bytes(profile(vision=True, image_tokens=n)) for n in (64, 46 * 46))
    assert one == other


COUNTED = measured_rows("projector-compute.csv")


@pytest.mark.parametrize("row", COUNTED, ids=lambda row: ",".join(row.values()))
def test_the_bound_is_close_to_what_the_server_reserves(
    row: dict[str, str], tmp_path: Path
) -> None:
    numbers = {name: int(row[name]) for name in NAMES}
    path = tmp_path / "mmproj.gguf"
    write_projector(path, replace(GLM_4_6V_FLASH, blocks=2, **numbers))
    with path.open("rb") as file:
        found = read_projector(parse_header(file.read(MIB)))
    assert found.file_bytes == path.stat().st_size
    assert (found.feed_forward, found.merger) == (numbers["feed_forward"], numbers["merger"])
    asked = profile(vision=True, flash_attention=row["flash_attention"] == "on")
    counted, bound = float(row["compute_mib"]), found.compute_bytes(asked) / MIB
    assert counted <= bound <= 1.25 * counted + 64


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"image_tokens": 512}, "image_tokens has no effect without vision"),
        ({"golden": [{"prompt": "?", "max_tokens": 9, "image": "data:image/png;base64,aa=="}]},
         "needs vision = true"),
        ({"vision": True, "golden": [{"prompt": "?", "max_tokens": 9, "image": "/etc/passwd"}]},
         "image"),
    ],
)  # fmt: skip
def test_keys_of_images_need_vision(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        profile(**keys)
