"""The tiny model is the same bytes everywhere and has the layout of the real family."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest
from gguf import GGMLQuantizationType, GGUFReader

from corral.smoke_model import gguf_writer

SHARDS = (
    "F16/Tiny-GLM-MoE-F16-00001-of-00002.gguf",
    "F16/Tiny-GLM-MoE-F16-00002-of-00002.gguf",
)
WHOLE = "Q8_0/Tiny-GLM-MoE-Q8_0.gguf"

# Golden replies of engines depend on these: change them together.
SHA256: Mapping[str, str] = {
    SHARDS[0]: "b217251410d5208be9680d45d928c65f3dda2f2b7a30bbba59c74644ee2ed3de",
    SHARDS[1]: "63a65bccf59557349a855757ddcbe6a8eecc16ebc49071e86b3d9d6f9c618f6d",
    WHOLE: "b1295817fb6f8a37d36c841a52fd4323a892e079845d91b392f26e4a3985c971",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    gguf_writer.write(folder)
    return folder


def test_the_files_are_the_pinned_bytes(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    found = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
    assert found == SHA256


def test_shards_are_numbered_as_llama_gguf_split_does(folder: Path) -> None:
    readers = [GGUFReader(folder / shard) for shard in SHARDS]
    assert [reader.fields["split.no"].contents() for reader in readers] == [0, 1]
    assert [reader.fields["split.count"].contents() for reader in readers] == [2, 2]
    tensors = sum(len(reader.tensors) for reader in readers)
    assert {reader.fields["split.tensors.count"].contents() for reader in readers} == {tensors}
    assert "general.architecture" not in readers[1].fields


def test_metadata_is_that_of_the_family(folder: Path) -> None:
    fields = GGUFReader(folder / WHOLE).fields
    assert fields["general.architecture"].contents() == "glm4moe"
    assert fields["glm4moe.context_length"].contents() == 131072
    assert fields["glm4moe.leading_dense_block_count"].contents() == 1
    assert "<|assistant|>" in fields["tokenizer.chat_template"].contents()
    assert "split.count" not in fields


def test_both_quants_hold_the_same_tensors(folder: Path) -> None:
    halves = [tensor.name for shard in SHARDS for tensor in GGUFReader(folder / shard).tensors]
    whole = GGUFReader(folder / WHOLE).tensors
    assert halves == [tensor.name for tensor in whole]
    kinds = {tensor.tensor_type for tensor in whole}
    assert kinds == {GGMLQuantizationType.F32, GGMLQuantizationType.Q8_0}
