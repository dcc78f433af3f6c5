"""Look for headers that break the reader: `python -m tests.fuzz.fuzz_gguf --seconds 600`.

Whatever the bytes, `parse_header` gives a header or raises one of its two errors, soon and in
little memory. It stops at the first finding, made small, and prints its bytes.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections import Counter
from collections.abc import Callable

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from corral.fit.ggml import TYPES
from corral.fit.gguf import Header, parse_header
from corral.model_files.errors import BadHeaderError, NeedMoreError
from tests.fuzz.gguf_files import (
    ARRAY,
    NUMBER_CODES,
    STRING,
    UINT32,
    File,
    Key,
    Plain,
    Written,
    placed,
    write,
    written_again,
)

LONGEST_SECONDS = 1.0
_MEMORY_BYTES = 2 * 1024**3
_EXAMPLES_A_ROUND = 2000
_INTEGERS = (0, 1, 2, 3, 8, 9, 31, 33, 4095, 4096, 4097, 2**15, 2**24, 2**28, 2**31 - 1, 2**31)
_EXTREMES = (*_INTEGERS, 2**32 - 1, 2**61, 2**62, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1)

_texts = st.text(max_size=8)
_plain_names = st.sampled_from(
    ["a", "b", "c", "general.alignment", "general.architecture", "blk.0.attn_q.weight", "é"]
)
_names = st.one_of(*[_plain_names] * 7, _texts)


def _numbers(type_id: int) -> st.SearchStrategy[Plain]:
    code = NUMBER_CODES[type_id]
    if code == "?":
        return st.booleans()
    if code in "fd":
        return st.floats(width=32 if code == "f" else 64)
    bits = {"b": 8, "h": 16, "i": 32, "q": 64}[code.lower()]
    least = -(2 ** (bits - 1)) if code.islower() else 0
    return st.integers(least, least + 2**bits - 1)


@st.composite
def _keys(draw: st.DrawFn) -> Key:
    name = draw(_names)
    if name == "general.alignment" and draw(st.booleans()):
        return Key(name, UINT32, draw(st.sampled_from([1, 2, 16, 32, 32, 64, 4096, 0, 3])))
    type_id = draw(st.sampled_from([*NUMBER_CODES, STRING, ARRAY]))
    if type_id == STRING:
        return Key(name, type_id, draw(_texts))
    if type_id != ARRAY:
        return Key(name, type_id, draw(_numbers(type_id)))
    element_type = draw(st.sampled_from([*NUMBER_CODES, STRING]))
    element = _texts if element_type == STRING else _numbers(element_type)
    values: list[Plain] = draw(st.lists(element, max_size=4))
    return Key(name, type_id, values * draw(st.sampled_from([1, 1, 1, 2000])), element_type)


@st.composite
def _tensors(draw: st.DrawFn) -> tuple[str, tuple[int, ...], int]:
    type_id = draw(st.sampled_from(sorted(TYPES)))
    row = TYPES[type_id].block_elements * draw(st.integers(1, 4))
    rest = draw(st.lists(st.integers(1, 5), max_size=3))
    return draw(_names), (row, *rest), type_id


@st.composite
def files(draw: st.DrawFn) -> Written:
    """A header that is mostly valid; only names may stand there twice."""
    twice = draw(st.sampled_from([False] * 9 + [True]))
    keys = draw(st.lists(_keys(), max_size=4, unique_by=None if twice else lambda key: key.name))
    alignment = draw(st.sampled_from([32, 32, 1, 64]))
    if alignment != 32:
        keys = [key for key in keys if key.name != "general.alignment"]
        keys.append(Key("general.alignment", UINT32, alignment))
    unique = None if twice else lambda tensor: tensor[0]
    tensors = placed(draw(st.lists(_tensors(), max_size=4, unique_by=unique)), alignment)
    return write(File(keys, tensors, alignment, version=draw(st.sampled_from([2, 3]))))


def _truncate(draw: st.DrawFn, file: Written) -> None:
    del file.data[draw(st.integers(0, len(file.data))) :]


def _flip(draw: st.DrawFn, file: Written) -> None:
    if file.data:
        file.data[draw(st.integers(0, len(file.data) - 1))] ^= 1 << draw(st.integers(0, 7))


def _splice(draw: st.DrawFn, file: Written) -> None:
    start, end, to = (draw(st.integers(0, len(file.data))) for _ in range(3))
    piece = file.data[min(start, end) : max(start, end)]
    file.data[to : to + draw(st.integers(0, 16))] = piece


def _random_bytes(draw: st.DrawFn, file: Written) -> None:
    start = draw(st.integers(0, len(file.data)))
    file.data[start:] = draw(st.binary(max_size=64))


def _extreme(draw: st.DrawFn, file: Written) -> None:
    position, length = draw(st.sampled_from(file.places))
    value = draw(st.sampled_from(_EXTREMES)) % 256**length
    file.data[position : position + length] = value.to_bytes(length, "little")


_MUTATIONS: tuple[Callable[[st.DrawFn, Written], None], ...] = (
    _truncate, _flip, _splice, _random_bytes, _extreme, _extreme, _extreme,
)  # fmt: skip


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """Bytes that are, or once were, a header."""
    file = draw(files())
    for mutate in draw(st.lists(st.sampled_from(_MUTATIONS), max_size=2)):
        mutate(draw, file)
    return bytes(file.data)


def check(data: bytes) -> str:
    """What became of the bytes. Raises AssertionError when the reader broke a promise."""
    before = time.process_time()
    try:
        header = parse_header(data)
    except NeedMoreError as more:
        _promise(more.at_least_bytes > len(data), "asks for what is not there")
        return "needs more"
    except BadHeaderError as error:
        _promise(str(error).isprintable(), "shows nothing that moves a terminal")
        return "bad"
    finally:
        _promise(time.process_time() - before < LONGEST_SECONDS, "is quick")
    check_header(header, data)
    return "read"


def check_header(header: Header, data: bytes) -> None:
    """What holds of every header that was read from ``data``."""
    assert header.data_start_bytes <= min(len(data), header.file_bytes)
    again = parse_header(written_again(header))
    # As text, since a NaN is not equal to itself.
    assert repr(again.metadata) == repr(header.metadata)
    assert again.tensors == header.tensors
    assert again.alignment_bytes == header.alignment_bytes
    try:
        parse_header(data[: header.data_start_bytes - 1])
    except NeedMoreError as more:
        _promise(more.at_least_bytes <= header.data_start_bytes, "asks for no more than there is")
    else:
        raise AssertionError("the reader read a header that was cut short")


def _promise(kept: bool, promise: str) -> None:
    if not kept:
        raise AssertionError(f"broken promise: the reader {promise}")


def run(seconds: float, examples: int, first_seed: int) -> Counter[str]:
    """Rounds of ``examples`` inputs until the time is over; how often each outcome came."""
    outcomes: Counter[str] = Counter()

    @settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(headers())
    def one_round(data: bytes) -> None:
        outcomes[check(data)] += 1

    deadline, number = time.monotonic() + seconds, first_seed
    while not outcomes or time.monotonic() < deadline:
        seed(number)(one_round)()
        number += 1
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    outcomes = run(options.seconds, _EXAMPLES_A_ROUND, options.seed)
    print(f"{outcomes.total()} executions, no finding: {dict(outcomes)}")


if __name__ == "__main__":
    main()
