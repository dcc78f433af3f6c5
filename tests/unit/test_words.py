"""Words that are not used in our own text and names: the field has its own for what they mean."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.samples import ROOT

pytestmark = pytest.mark.slow

FOLDERS = ("corral", "deploys", "facts", "files", "lab", "operations", "templates", "docs")
PAGES = ("README.md", "CONTRIBUTING.md", "deploy.py", "Makefile")
SUFFIXES = {".py", ".md", ".j2", ".sh", ".html", ""}

# Pattern -> what an engineer of this field writes.
WORDS = {
    r"told|tellings?": "format_*, report, print, state",
    r"heard|hear": "progress, answer, receive",
    r"news": "progress, status",
    r"mend(s|ed|ing)?": "fix",
    r"stands? against": "block, finding, obstacle",
    r"who asks|asker": "current operator",
    r"(way|ways)[ _]back": "revert",
    r"(take|takes|taken|took|put|puts|step|steps)[ _]back": "revert, restore",
    r"of[ _]before": "previous",
    r"is[ _]sick": "faulty",
}
# What is not ours to name: keys of documents that hosts of earlier versions read and write, and
# of Grafana's configuration.
WIRE = re.compile(
    r"""["'`]asker["'`]|\basker(?=,? \(?the current operator|, as for)|"news"|news_feed_enabled"""
)


def ours() -> Iterator[Path]:
    """Files of our own text, except generated ones and earlier entries of a history."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and path.suffix in SUFFIXES and "__pycache__" not in path.parts:
                yield path
    yield from (ROOT / page for page in PAGES)


def uses(word: str, text: str) -> list[str]:
    """Lines that use a word, in prose or as a part of a name."""
    pattern = re.compile(rf"(?<![A-Za-z])({word})(?![A-Za-z])", re.IGNORECASE)
    return [line.strip() for line in text.splitlines() if pattern.search(WIRE.sub("", line))]


@pytest.mark.parametrize("word", WORDS)
def test_a_word_that_is_not_used(word: str) -> None:
    found = {
        str(path.relative_to(ROOT)): lines
        for path in ours()
        if (lines := uses(word, path.read_text(encoding="utf-8", errors="replace")))
    }
    assert not found, f"write: {WORDS[word]}"


@pytest.mark.parametrize(
    "text",
    ["def told(report):", "what is heard of it", "_news = 1", "stands against it", "is taken back"],
)
def test_a_use_is_found_in_prose_and_in_names(text: str) -> None:
    assert any(uses(word, text) for word in WORDS)


@pytest.mark.parametrize(
    "text", ['{"asker": state}', "hearing", "newsletter", "recommend", "heart"]
)
def test_wire_names_and_other_words_are_not_meant(text: str) -> None:
    assert not any(uses(word, text) for word in WORDS)
