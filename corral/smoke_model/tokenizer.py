"""tokenizer.json of a byte-level BPE vocabulary, as `tokenizers` writes it.

The standard library alone: lab/measure_vllm runs where Corral's dependencies are not installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class Added(NamedTuple):
    """A token that is recognized in a text; ``special``: it is left out of replies."""

    id: int
    content: str
    special: bool = True


def tokenizer_json(
    vocabulary: Sequence[str], added: Sequence[Added], merges: Sequence[str] = ()
) -> dict[str, Any]:
    """The document; ``merges``: pairs of tokens with a space between them."""
    split = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(token) for token in added],
        "normalizer": None,
        "pre_tokenizer": split | {"use_regex": True},
        "post_processor": None,
        "decoder": split | {"use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(vocabulary)},
            "merges": [merge.split() for merge in merges],
        },
    }


def _added(token: Added) -> dict[str, Any]:
    return {
        "id": token.id,
        "content": token.content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": token.special,
    }
