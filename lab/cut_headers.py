"""A real model's GGUF header with a few of its blocks, for engines that load what they count."""

from __future__ import annotations

import lzma
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import gguf

from corral.fit.gguf import parse_header

_BLOCKS, _ARCHITECTURE = "block_count", "general.architecture"
# The number of MTP blocks, which come last.
_MTP_BLOCKS = "nextn_predict_layers"


def cut_header(packed: Path, path: Path, *, blocks: Sequence[int]) -> int:
    """Write a model of some ``blocks``, renumbered, with holes for weights; returns its size.

    + packed: the header of the whole model, compressed with xz
    """
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole.gguf"
        raw = lzma.decompress(packed.read_bytes())
        whole.write_bytes(raw)
        # The reader looks for the weights of each tensor.
        os.truncate(whole, parse_header(raw).file_bytes)
        reader = gguf.GGUFReader(whole)
        writer = gguf.GGUFWriter(path, str(reader.fields[_ARCHITECTURE].contents()))
        _copy_keys(reader, writer, blocks)
        size_bytes = _copy_tensors(reader, writer, blocks)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
    size_bytes += -(-path.stat().st_size // 32) * 32
    os.truncate(path, size_bytes)
    return size_bytes


def _copy_keys(reader: gguf.GGUFReader, writer: gguf.GGUFWriter, blocks: Sequence[int]) -> None:
    counts = {
        name.rpartition(".")[2]: int(field.contents())
        for name, field in reader.fields.items()
        if name.endswith((f".{_BLOCKS}", f".{_MTP_BLOCKS}"))
    }
    first_mtp = counts[_BLOCKS] - counts.get(_MTP_BLOCKS, 0)
    kept = {_BLOCKS: len(blocks), _MTP_BLOCKS: sum(block >= first_mtp for block in blocks)}
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == _ARCHITECTURE:
            continue
        value = kept.get(name.rpartition(".")[2], field.contents())
        items = field.types[-1] if len(field.types) > 1 else None
        writer.add_key_value(name, value, field.types[0], items)


def _copy_tensors(reader: gguf.GGUFReader, writer: gguf.GGUFWriter, blocks: Sequence[int]) -> int:
    """Entries of the tensors that are kept; returns the bytes of all, each padded to 32."""
    size_bytes = 0
    numbers = {f"blk.{old}.": f"blk.{new}." for new, old in enumerate(blocks)}
    for tensor in reader.tensors:
        name = tensor.name
        if name.startswith("blk."):
            block = name[: name.index(".", 4) + 1]
            if block not in numbers:
                continue
            name = name.replace(block, numbers[block], 1)
        writer.add_tensor_info(
            name, tensor.data.shape, tensor.data.dtype, tensor.n_bytes,
            raw_dtype=tensor.tensor_type,
        )  # fmt: skip
        size_bytes += -(-tensor.n_bytes // 32) * 32
    return size_bytes
