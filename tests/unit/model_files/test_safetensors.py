"""Headers of safetensors files: what is read, and what is refused in one sentence."""

from __future__ import annotations

import contextlib
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.model_files.errors import BadHeaderError, NeedMoreError
from corral.model_files.safetensors import Tensor, parse_safetensors
from tests.unit.safetensors_files import entries, header_of, raw_header

TENSORS = {"a.weight": ("BF16", (4, 3)), "a.scale": ("F32", (4, 1)), "none": ("F32", (0, 7))}


def refusal(document: Any) -> str:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    with pytest.raises(BadHeaderError) as caught:
        parse_safetensors(raw_header(text) + bytes(100))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refusal_of(**changes: Any) -> str:
    """One tensor of 24 bytes, with changed keys; None removes one."""
    entry = entries({"a": ("BF16", (4, 3))})["a"] | changes
    return refusal({"a": {key: value for key, value in entry.items() if value is not None}})


def test_names_types_shapes_and_offsets_are_read() -> None:
    raw = header_of(TENSORS)
    header = parse_safetensors(raw + b"data")
    assert header.tensors == (
        Tensor("a.weight", "BF16", (4, 3), 0),
        Tensor("a.scale", "F32", (4, 1), 24),
        Tensor("none", "F32", (0, 7), 40),
    )
    assert [tensor.size_bytes for tensor in header.tensors] == [24, 16, 0]
    assert header.data_start_bytes == len(raw)
    assert header.file_bytes == len(raw) + 40


def test_order_and_padding_of_the_json_do_not_matter() -> None:
    turned = dict(reversed(entries(TENSORS).items()))
    padded = raw_header(json.dumps(turned).encode() + b"   ")
    assert parse_safetensors(padded).tensors == parse_safetensors(header_of(TENSORS)).tensors


def test_a_number_and_elements_of_half_a_byte_have_a_size() -> None:
    tensors = {"one": ("F32", ()), "packed": ("F4", (2, 3)), "scale": ("F8_E8M0", (2, 1))}
    sizes = [tensor.size_bytes for tensor in parse_safetensors(header_of(tensors)).tensors]
    assert sizes == [4, 3, 2]


@pytest.mark.parametrize("length", [0, 7, 8, 40])
def test_a_part_asks_for_the_rest(length: int) -> None:
    raw = header_of(TENSORS)
    with pytest.raises(NeedMoreError) as caught:
        parse_safetensors(raw[:length])
    assert caught.value.at_least_bytes == (8 if length < 8 else len(raw))


def test_a_far_longer_header_than_any_model_has_is_refused_at_once() -> None:
    for length in (32 * 1024**2 + 1, 2**64 - 1):
        with pytest.raises(BadHeaderError, match="more than 33554432"):
            parse_safetensors(struct.pack("<Q", length))
    with pytest.raises(BadHeaderError, match="not a safetensors file"):
        parse_safetensors(b"<!DOCTYPE html>")


@pytest.mark.parametrize(
    "text",
    [b"[]", b'{"a"', b"{}x", b"\xff\xfe", b'{"a":' * 100_000, b'{"a": ' + b"9" * 5000 + b"}"],
)
def test_other_json_is_refused(text: bytes) -> None:
    assert "JSON" in refusal(text)


def test_a_name_that_appears_twice_is_refused() -> None:
    entry = json.dumps(entries({"a": ("U8", (1,))})["a"])
    assert refusal(f'{{"a": {entry}, "a": {entry}}}'.encode()) == "a appears twice"


@pytest.mark.parametrize("name", ["", "x" * 513, "a\nb", "a\u202eb", "\ud800"])
def test_a_name_that_cannot_be_shown_is_refused(name: str) -> None:
    assert "has the name" in refusal({name: entries({"a": ("U8", (1,))})["a"]})


def test_an_entry_of_another_form_is_refused() -> None:
    assert "keys" in refusal({"a": []})
    assert "keys" in refusal_of(dtype=None)
    assert "keys" in refusal_of(more=1)
    assert "unknown type BF17" in refusal_of(dtype="BF17")
    assert "unknown type" in refusal_of(dtype=["BF16"])
    shapes: list[Any] = [[-1], [True], [1.5], ["4"], {}, [2**63], [1] * 9]
    for shape in shapes:
        assert "impossible shape" in refusal_of(shape=shape)
    for offsets in ([0], [0, 24, 48], [0, "24"], [-24, 0], 24):
        assert "two offsets" in refusal_of(data_offsets=offsets)


def test_metadata_are_texts() -> None:
    others: list[Any] = [[], {"format": 1}, "pt"]
    for metadata in others:
        assert "__metadata__" in refusal({"__metadata__": metadata})


def test_a_size_that_disagrees_with_the_shape_is_refused() -> None:
    assert refusal_of(data_offsets=[0, 23]) == (
        "tensor a has 23 bytes, but BF16 of shape (4, 3) takes 24 bytes"
    )
    assert "has -24 bytes" in refusal_of(data_offsets=[24, 0])
    assert "takes 1.5 bytes" in refusal_of(dtype="F4", shape=[3], data_offsets=[0, 1])


def test_holes_and_overlaps_are_refused() -> None:
    two = entries({"a": ("U8", (4,)), "b": ("U8", (4,))})
    assert "tensor b follows a hole" in refusal(two | {"b": two["b"] | {"data_offsets": [5, 9]}})
    assert "tensor b overlaps" in refusal(two | {"b": two["b"] | {"data_offsets": [3, 7]}})
    assert "tensor a follows a hole" in refusal({"a": two["b"]})


@given(st.binary(max_size=200), st.integers(0, 60))
def test_no_bytes_end_it_with_another_error(noise: bytes, place: int) -> None:
    raw = bytearray(header_of(TENSORS))
    raw[place : place + len(noise)] = noise
    with contextlib.suppress(BadHeaderError, NeedMoreError):
        assert parse_safetensors(bytes(raw)).file_bytes >= 8
