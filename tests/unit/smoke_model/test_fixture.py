"""The models that releases are tried on: by the format that an engine reads, always the same."""

from __future__ import annotations

import io
import zipfile

from corral.paths import HostPaths
from corral.smoke_model.fixture import SmokeModel, _folder
from operations.engine import smoke_model
from tests.samples import CHAT, plan


def test_a_folder_is_an_archive_with_the_same_bytes_every_time() -> None:
    model = SmokeModel("safetensors")
    first = model.content()
    _folder.cache_clear()
    assert model.content() == first
    assert len(first) < 1_500_000
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        names = archive.namelist()
    assert names == sorted(names)
    needed = {"config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors"}
    assert needed <= set(names)


def test_each_format_has_its_own_file() -> None:
    paths = HostPaths()
    assert SmokeModel().path(paths).endswith("/smoke-model.gguf")
    assert SmokeModel("safetensors").path(paths).endswith("/smoke-model.zip")


def test_an_engine_is_tried_on_the_format_that_it_reads() -> None:
    release = plan(CHAT).releases[0]
    assert smoke_model(release) == SmokeModel("gguf")
    assert smoke_model(release.model_copy(update={"kind": "vllm"})) == SmokeModel("safetensors")
