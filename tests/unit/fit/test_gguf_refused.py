"""GGUF headers that are refused, each in one sentence."""

from __future__ import annotations

import dataclasses
import struct
from typing import Any

import pytest

from corral.fit.gguf import Tensor, parse_header
from corral.model_files.errors import BadHeaderError, NeedMoreError
from tests.fuzz.gguf_files import (
    ARRAY,
    BOOL,
    STRING,
    UINT32,
    UINT64,
    File,
    Key,
    placed,
)
from tests.unit.fit.test_gguf import F32, Q4_0, data


def refusal(file: File) -> str:
    with pytest.raises(BadHeaderError) as caught:
        parse_header(data(file))
    return str(caught.value)


def refusal_of_tensor(**changes: Any) -> str:
    tensor = dataclasses.replace(Tensor("blk.0.x", (32, 2), Q4_0, 0), **changes)
    return refusal(File(tensors=[tensor]))


def test_no_gguf_says_what_the_file_starts_with() -> None:
    with pytest.raises(BadHeaderError, match="it is not a GGUF file, it starts with b'<!DO'"):
        parse_header(b"<!DOCTYPE html>")


def test_a_big_endian_file_is_named_so() -> None:
    assert "big-endian" in refusal(File(version=3 << 24))


@pytest.mark.parametrize("version", [0, 1, 4])
def test_other_versions_are_refused(version: int) -> None:
    assert refusal(File(version=version)).startswith(f"it is of GGUF version {version},")


def test_absurd_counts_are_refused_at_once() -> None:
    assert refusal(File(key_count=2**63)) == f"the header claims {2**63} keys, more than 1000"
    assert "claims 100001 tensors" in refusal(File(tensor_count=100_001))


def test_the_most_keys_and_tensors_are_asked_for() -> None:
    with pytest.raises(NeedMoreError):
        parse_header(data(File(key_count=1000, tensor_count=100_000)))


@pytest.mark.parametrize("element_type", [UINT32, STRING])
def test_an_array_beyond_the_longest_header_is_refused(element_type: int) -> None:
    content = data(File([Key("a", ARRAY, [], element_type)]))
    count = struct.pack("<Q", 2**40)
    with pytest.raises(BadHeaderError, match="longer than 256 MiB"):
        parse_header(content[:-8] + count)


def test_a_string_beyond_the_longest_header_is_refused() -> None:
    length = struct.pack("<Q", 2**64 - 1)
    one, two = Key("a", STRING, ""), Key("a", ARRAY, ["", ""], STRING)
    for content in (
        data(File([one]))[:-8] + length,
        data(File([two]))[:-8] + length,
        data(File([two]))[:-16] + length + bytes(8),
    ):
        with pytest.raises(BadHeaderError, match="longer than 256 MiB"):
            parse_header(content)


def test_a_string_up_to_the_longest_header_is_asked_for() -> None:
    content = data(File([Key("a", STRING, "")]))
    with pytest.raises(NeedMoreError) as caught:
        parse_header(content[:-8] + struct.pack("<Q", 2**20))
    assert caught.value.at_least_bytes == len(content) + 2**20


def test_text_that_is_no_utf_8_is_refused() -> None:
    assert refusal(File([Key(b"\xff", UINT32, 0)])) == "key 0 is not UTF-8"
    assert refusal(File([Key("a", STRING, b"\xff")])) == "the value of a is not UTF-8"


def test_names_are_short_printable_and_not_empty() -> None:
    assert refusal(File([Key("", UINT32, 0)])) == "key 0 has 0 bytes, not 1 to 65535"
    assert "key 0 has 65536 bytes" in refusal(File([Key("a" * 65_536, UINT32, 0)]))
    assert "the name of tensor 0 has 64 bytes" in refusal_of_tensor(name="a" * 64)


def test_a_name_that_moves_the_terminal_is_shown_escaped() -> None:
    """Found by the fuzzer: errors showed names as they are."""
    assert refusal(File([Key("\x1b[2J", UINT32, 0)])) == r"key 0 is not printable: '\x1b[2J'"
    assert refusal_of_tensor(name="a\x01") == r"the name of tensor 0 is not printable: 'a\x01'"


def test_what_stands_there_twice_is_refused() -> None:
    assert refusal(File([Key("a", UINT32, 0)] * 2)) == "the key a appears twice"
    tensors = placed([("a", (32,), Q4_0)] * 2)
    assert refusal(File(tensors=tensors)) == "tensor a appears twice"


def test_an_unknown_value_type_is_refused() -> None:
    assert refusal(File([Key("a", 13, 0)])) == "a has the unknown value type 13"
    assert refusal(File([Key("a", ARRAY, [], 13)])) == "a has the unknown value type 13"


def test_an_array_of_arrays_is_refused() -> None:
    assert "a is an array of arrays" in refusal(File([Key("a", ARRAY, [], ARRAY)]))


@pytest.mark.parametrize("alignment", [0, 3, 48])
def test_an_alignment_is_a_power_of_two(alignment: int) -> None:
    text = refusal(File([Key("general.alignment", UINT32, alignment)]))
    assert text == f"general.alignment is {alignment}, not a power of two"


@pytest.mark.parametrize("type_id", [UINT64, BOOL])
def test_an_alignment_is_an_uint32(type_id: int) -> None:
    text = refusal(File([Key("general.alignment", type_id, 1)]))
    assert text == "general.alignment is not a uint32"


@pytest.mark.parametrize("shape", [(), (1,) * 5])
def test_a_tensor_has_one_to_four_dimensions(shape: tuple[int, ...]) -> None:
    text = refusal_of_tensor(shape=shape, type_id=F32)
    assert text == f"tensor blk.0.x has {len(shape)} dimensions, not 1 to 4"


@pytest.mark.parametrize("shape", [(0,), (32, 0), (2**63,), (2**32, 2**31), (2**64 - 1,)])
def test_an_impossible_shape_is_refused(shape: tuple[int, ...]) -> None:
    assert "tensor blk.0.x has the impossible shape" in refusal_of_tensor(shape=shape)


def test_a_tensor_that_ends_beyond_any_file_is_refused() -> None:
    assert "beyond any file" in refusal_of_tensor(offset_bytes=2**63 - 32)
    assert "beyond any file" in refusal_of_tensor(shape=(2**62,), type_id=F32)


@pytest.mark.parametrize("type_id", [4242, -1, 4])
def test_an_unknown_tensor_type_is_named(type_id: int) -> None:
    text = refusal_of_tensor(type_id=type_id)
    assert text == f"tensor blk.0.x has the unknown type {type_id}"


def test_a_row_that_is_no_whole_number_of_blocks_is_refused() -> None:
    assert "tensor blk.0.x has rows of 33 elements" in refusal_of_tensor(shape=(33,))


def test_an_offset_off_the_alignment_is_refused() -> None:
    assert refusal_of_tensor(offset_bytes=16).startswith("tensor blk.0.x begins at byte 16 of")


def test_tensors_that_overlap_are_refused() -> None:
    tensors = [Tensor("a", (64,), Q4_0, 0), Tensor("b", (64,), Q4_0, 32)]
    assert refusal(File(tensors=tensors)) == "tensors a and b overlap"
