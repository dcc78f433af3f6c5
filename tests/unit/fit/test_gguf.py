"""GGUF headers that are read: real ones, made ones, and what the fuzzer makes."""

from __future__ import annotations

import lzma
import time
from functools import cache

import pytest

from corral.fit.ggml import TYPES
from corral.fit.gguf import ArrayOf, parse_header
from corral.model_files.errors import NeedMoreError
from tests.fuzz import fuzz_gguf
from tests.fuzz.gguf_files import (
    ARRAY,
    BOOL,
    NUMBER_CODES,
    STRING,
    UINT32,
    File,
    Key,
    placed,
    write,
    written_again,
)
from tests.samples import ROOT

pytestmark = pytest.mark.slow

DATA = ROOT.parent / "shared" / "data"
FILE_BYTES = {"GLM-4-32B-0414": 17_593_510_848, "GLM-4.5-Air": 82_572_049_696}
TENSORS = {"GLM-4-32B-0414": 613, "GLM-4.5-Air": 803}
Q4_0, F32 = 2, 0


@cache
def real(name: str) -> bytes:
    return lzma.decompress((DATA / f"{name}.gguf-header.xz").read_bytes())


def data(file: File) -> bytes:
    return bytes(write(file).data)


@pytest.mark.parametrize("name", FILE_BYTES)
def test_a_real_header_gives_the_exact_size_of_its_file(name: str) -> None:
    header = parse_header(real(name))
    assert header.file_bytes == FILE_BYTES[name]
    assert len(header.tensors) == TENSORS[name]
    assert header.data_start_bytes == len(real(name))
    assert header.metadata["tokenizer.ggml.tokens"] == ArrayOf("string", 151552)
    assert header.metadata["tokenizer.ggml.token_type"] == ArrayOf("int32", 151552)


@pytest.mark.parametrize("name", FILE_BYTES)
def test_a_real_header_is_read_in_a_tenth_of_a_second(name: str) -> None:
    content = real(name)
    before = time.process_time()
    parse_header(content)
    assert time.process_time() - before < 0.1


def test_metadata_of_a_real_header_is_kept() -> None:
    metadata = parse_header(real("GLM-4.5-Air")).metadata
    assert metadata["general.architecture"] == "glm4moe"
    assert metadata["glm4moe.block_count"] == 47
    assert metadata["glm4moe.nextn_predict_layers"] == 1
    assert metadata["glm4moe.expert_weights_norm"] is True
    assert str(metadata["tokenizer.chat_template"]).startswith("[gMASK]<sop>")


@pytest.mark.parametrize("type_id", [0, 1, 2, 3, 4, 5, 10, 11])
def test_integers_of_every_type_are_read(type_id: int) -> None:
    keys = [Key("one", type_id, 7), Key("many", ARRAY, [1, 2, 3], type_id)]
    assert parse_header(data(File(keys))).metadata == {"one": 7, "many": (1, 2, 3)}


@pytest.mark.parametrize(
    ("type_id", "least", "most"),
    [(0, 0, 2**8 - 1), (1, -(2**7), 2**7 - 1), (2, 0, 2**16 - 1), (3, -(2**15), 2**15 - 1)]
    + [(4, 0, 2**32 - 1), (5, -(2**31), 2**31 - 1)]
    + [(10, 0, 2**64 - 1), (11, -(2**63), 2**63 - 1)],
)
def test_the_least_and_the_most_integers_are_read(type_id: int, least: int, most: int) -> None:
    keys = [Key("least", type_id, least), Key("most", type_id, most)]
    assert parse_header(data(File(keys))).metadata == {"least": least, "most": most}


@pytest.mark.parametrize("type_id", [6, 12])
def test_floats_of_every_type_are_read(type_id: int) -> None:
    keys = [Key("one", type_id, 0.5), Key("many", ARRAY, [-2.0], type_id)]
    assert parse_header(data(File(keys))).metadata == {"one": 0.5, "many": (-2.0,)}


def test_negative_numbers_bools_and_strings_are_read() -> None:
    keys = [Key("least", 5, -1), Key("on", BOOL, True), Key("text", STRING, "é\n")]
    assert parse_header(data(File(keys))).metadata == {"least": -1, "on": True, "text": "é\n"}


def test_long_arrays_and_strings_in_arrays_are_only_counted() -> None:
    keys = [
        Key("kept", ARRAY, [1] * 4096, UINT32),
        Key("long", ARRAY, [1] * 4097, UINT32),
        Key("words", ARRAY, ["a", "", "bc"], STRING),
        Key("after", UINT32, 9),
    ]
    metadata = parse_header(data(File(keys))).metadata
    assert metadata["kept"] == (1,) * 4096
    assert metadata["long"] == ArrayOf("uint32", 4097)
    assert metadata["words"] == ArrayOf("string", 3)
    assert metadata["after"] == 9


@pytest.mark.parametrize("type_id", NUMBER_CODES)
def test_long_arrays_of_every_type_are_passed_over(type_id: int) -> None:
    keys = [Key("long", ARRAY, [0] * 5000, type_id), Key("after", UINT32, 9)]
    metadata = parse_header(data(File(keys))).metadata
    assert isinstance(metadata["long"], ArrayOf)
    assert metadata["long"].count == 5000
    assert metadata["after"] == 9


@pytest.mark.parametrize("version", [2, 3])
def test_both_versions_are_read(version: int) -> None:
    assert parse_header(data(File(version=version))).version == version


def test_the_data_begins_at_the_alignment() -> None:
    tensors = placed([("a", (32,), Q4_0), ("b", (3,), F32)], alignment_bytes=64)
    file = File([Key("general.alignment", UINT32, 64)], tensors, alignment_bytes=64)
    header = parse_header(data(file))
    assert header.alignment_bytes == 64
    assert header.data_start_bytes % 64 == 0
    assert [tensor.offset_bytes for tensor in header.tensors] == [0, 64]
    # The last tensor need not be padded: the engines check its own end.
    assert header.file_bytes == header.data_start_bytes + 64 + 12


def test_a_shard_without_tensors_ends_where_its_keys_end() -> None:
    content = data(File([Key("split.count", UINT32, 3)]))
    header = parse_header(content)
    assert header.data_start_bytes == header.file_bytes == len(content)


def test_tensors_may_stand_in_any_order() -> None:
    tensors = placed([("a", (32,), Q4_0), ("b", (32,), Q4_0)])
    header = parse_header(data(File(tensors=tensors[::-1])))
    assert [tensor.name for tensor in header.tensors] == ["b", "a"]
    assert header.file_bytes == header.data_start_bytes + 32 + 18


def test_a_header_that_is_cut_short_asks_for_more_but_never_for_too_much() -> None:
    keys = [
        Key("text", STRING, "value"),
        Key("words", ARRAY, ["a", "bc"], STRING),
        Key("numbers", ARRAY, [1, 2], UINT32),
    ]
    whole = data(File(keys, placed([("a", (32,), Q4_0)])))
    for length in range(len(whole)):
        with pytest.raises(NeedMoreError) as caught:
            parse_header(whole[:length])
        assert length < caught.value.at_least_bytes <= len(whole)
    assert parse_header(whole).data_start_bytes == len(whole)


def test_bytes_after_the_header_do_not_matter() -> None:
    whole = data(File(tensors=placed([("a", (32,), Q4_0)])))
    assert parse_header(memoryview(whole + b"\xff" * 100)) == parse_header(whole)


def test_a_header_reads_the_same_when_written_again() -> None:
    header = parse_header(real("GLM-4.5-Air"))
    again = parse_header(written_again(header))
    assert (again.metadata, again.tensors) == (header.metadata, header.tensors)


def test_every_tensor_type_can_stand_in_a_header() -> None:
    tensors = placed([(f"t{n}", (kind.block_elements,), n) for n, kind in TYPES.items()])
    header = parse_header(data(File(tensors=tensors)))
    assert [tensor.type_id for tensor in header.tensors] == list(TYPES)


def test_the_fuzzer_finds_nothing_in_a_short_run() -> None:
    outcomes = fuzz_gguf.run(seconds=0, examples=300, first_seed=2024)
    assert set(outcomes) == {"read", "bad", "needs more"}
