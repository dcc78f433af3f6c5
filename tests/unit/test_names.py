"""Names from outside: which become paths, and which never do."""

from __future__ import annotations

import unicodedata

import pytest
from corral_shared.names import file_name_problem, hub_path_problem
from corral_shared.text import printable, printable_line
from hypothesis import given
from hypothesis import strategies as st

GOOD = [
    "model.gguf", "UD-Q4_K_XL/GLM-4.5-Air-UD-Q4_K_XL-00001-of-00002.gguf", "a b.gguf", "a#b?c%20d",
    "模型/ä.gguf", "-dash", "..dots", "a..b/...", "x" * 200,
]  # fmt: skip
BAD = [
    "", "/etc/cron.d/owned", "../up", "a/../b", "a/./b", "a//b", "a/", ".", "..",
    "a\n  dir=/etc/cron.d\n  out=owned", "a\rb", "a\tb", "a\x00b", "a\x1b[2Jb", "a\u202eb",
    "a\u2066b", "a\u2028b", "a\ud800b", "x" * 201, "ä" * 101, "/".join(["ab"] * 400),
]  # fmt: skip


@pytest.mark.parametrize("path", GOOD)
def test_an_ordinary_path_of_a_hub_is_taken(path: str) -> None:
    assert hub_path_problem(path) is None


@pytest.mark.parametrize("path", BAD)
def test_a_path_that_could_lead_elsewhere_is_refused(path: str) -> None:
    assert hub_path_problem(path)


@pytest.mark.parametrize("value", [None, 7, b"a", ["a"]])
def test_only_text_is_a_name(value: object) -> None:
    assert file_name_problem(value) == "is not text"
    assert hub_path_problem(value) == "is not text"


def test_a_file_name_is_one_part() -> None:
    assert file_name_problem("a/b") == "has a slash in it"


@given(st.text())
def test_what_is_printed_has_no_control_bidi_or_surrogate_character(text: str) -> None:
    shown = printable(text)
    assert all(unicodedata.category(c) not in ("Cc", "Cf", "Cs") for c in shown if c not in "\n\t")
    assert len(printable_line(text).splitlines()) <= 1


def test_an_escape_sequence_is_shown_and_not_obeyed() -> None:
    assert printable("\x1b[2Jü\u202e\ud800\n") == "\\x1b[2Jü\\u202e\\ud800\n"
