"""Comparing two benchmarks, and drawing them."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest

from corral.bench.compare import compare, compare_measures, welch_margin
from corral.bench.plot import plot, refuse_plot
from corral.errors import CorralError
from tests.unit.bench_samples import measure, result

pytestmark = pytest.mark.slow


def test_the_margin_is_welchs() -> None:
    # Variances 1 and 4 over 3: degrees of freedom (5/3)^2 / ((1/9 + 16/9) / 2) = 2.94, so those
    # of 2 hold: t is 4.303.
    assert welch_margin([1, 2, 3], [2, 4, 6]) == pytest.approx(4.303 * math.sqrt(5 / 3))
    # Equal variances and sizes: 2n - 2 = 8 degrees, t is 2.306.
    assert welch_margin([1, 2, 3, 4, 5], [11, 12, 13, 14, 15]) == pytest.approx(2.306)


def test_many_samples_come_close_to_the_normal_distribution() -> None:
    many = [0.0, 1.0] * 200
    assert welch_margin(many, many) == pytest.approx(1.96 * math.sqrt(2 * 0.25 / 400), rel=0.02)


@pytest.mark.parametrize(
    ("a", "b", "verdict", "says"),
    [
        ((112, 111, 113, 112, 112), (100, 99, 101, 100, 100), "a", "A faster by 12%"),
        ((100, 99, 101, 100, 100), (103, 102, 104, 103, 103), "b", "B faster by 3.0%"),
        ((100, 90, 110, 95, 105), (102, 92, 112, 97, 107), "none", "no difference"),
        ((100, 100), (100, 100), "none", "no difference"),
        ((102, 102), (100, 100), "a", "A faster by 2.0%"),
        ((200,), (100, 101), "unknown", "too few samples"),
    ],
)
def test_a_difference_counts_beyond_the_noise(
    a: tuple[float, ...], b: tuple[float, ...], verdict: str, says: str
) -> None:
    row = compare_measures(measure(*a), measure(*b))
    assert (row.verdict, row.says) == (verdict, says)
    assert row.ratio == pytest.approx((sum(a) / len(a)) / (sum(b) / len(b)))


def test_a_result_does_not_differ_from_itself() -> None:
    one = result(measure(10, 11, 12), measure(5, 6, 7, depth=512))
    compared = compare(one, one)
    assert {row.verdict for row in compared.rows} == {"none"}
    assert compared.notes == ()


def test_rows_go_by_depth_with_the_prompt_first() -> None:
    one = result(
        measure(1, 2, depth=512),
        measure(1, 2, sequences=2),
        measure(1, 2),
        measure(1, 2, test="prompt"),
    )
    found = [(row.sequences, row.depth_tokens, row.test) for row in compare(one, one).rows]
    assert found == [
        *((1, 0, "prompt"), (1, 0, "generation"), (1, 512, "generation"), (2, 0, "generation")),
    ]


def test_what_else_could_be_the_reason_is_told() -> None:
    a = result(measure(1, 2), measure(1, 2, depth=512), gpus=("NVIDIA H200", "NVIDIA H200"))
    b = result(measure(1, 2, tokens=64), where="stopped")
    assert compare(a, b).notes == (
        "devices differs: 2 x NVIDIA H200 and AMD EPYC",
        "where differs: beside and stopped",
        "measured in one only: depths 512",
        "generation: 128 tokens at a time in A, 64 in B",
    )


def test_nothing_in_common_is_said() -> None:
    with pytest.raises(CorralError, match="no depth was measured in both"):
        compare(result(measure(1, depth=1)), result(measure(1, depth=2)))


def test_results_are_drawn(tmp_path: Path) -> None:
    measures = [measure(9, 10, 11, depth=n, test="prompt") for n in (0, 512)]
    plot([result(*measures)], tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_drawing_names_both(tmp_path: Path) -> None:
    plot([result(), result(instance="other")], tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert text.startswith("<?xml")
    assert "node-1/chat llama.cpp 0c1e570, 2026-11-21T16:06:18Z" in text
    assert "node-1/other llama.cpp 0c1e570" in text


@pytest.mark.parametrize(
    ("name", "what"), [("a.pdf", "neither .png nor .svg"), ("absent/a.png", "folder is not there")]
)
def test_what_cannot_be_drawn_is_refused(tmp_path: Path, name: str, what: str) -> None:
    with pytest.raises(CorralError, match=what):
        refuse_plot(tmp_path / name)


def test_without_matplotlib_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(CorralError, match=r"pip install 'corral\[plot\]'"):
        refuse_plot(tmp_path / "a.png")
