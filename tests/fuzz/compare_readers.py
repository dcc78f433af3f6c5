"""Seconds to read one header with the gguf library and with ours:
`python -m tests.fuzz.compare_readers ../shared/data/GLM-4.5-Air.gguf-header.xz 82572049696`.
"""

from __future__ import annotations

import argparse
import lzma
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from gguf import GGUFReader

from corral.fit.gguf import Header, parse_header

T = TypeVar("T")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("header", type=Path, help="compressed by xz")
    parser.add_argument("file_bytes", type=int, help="size of the file that it is from")
    options = parser.parse_args()
    content = lzma.decompress(options.header.read_bytes())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "whole.gguf"
        path.write_bytes(content)
        os.truncate(path, options.file_bytes)  # the library maps the weights, too
        library = _timed("gguf library", lambda: GGUFReader(path))
        ours = _timed("corral", lambda: parse_header(content))
        _check_same(library, ours)
        print(f"the same {len(ours.tensors)} tensors, types, offsets and sizes")


def _timed(name: str, read: Callable[[], T]) -> T:
    before = time.perf_counter()
    result = read()
    print(f"{name}: {time.perf_counter() - before:.3f} s")
    return result


def _check_same(library: GGUFReader, ours: Header) -> None:
    theirs = [
        (t.name, int(t.tensor_type), t.data_offset - ours.data_start_bytes, t.n_bytes)
        for t in library.tensors
    ]
    assert theirs == [(t.name, t.type_id, t.offset_bytes, t.size_bytes) for t in ours.tensors]


if __name__ == "__main__":
    main()
