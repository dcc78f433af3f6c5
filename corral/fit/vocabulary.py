"""Whether a draft model has the vocabulary of its main model, as far as their headers say.

Source: common_speculative_are_compatible of common/speculative.cpp, llama.cpp 0c1e57098bba, which
ends the server at its start. The texts of tokens are not read here; the server compares them, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from corral.fit.gguf import ArrayOf, Value

# SPEC_VOCAB_MAX_SIZE_DIFFERENCE.
_MOST_MORE_TOKENS = 128
_KEYS = "tokenizer.ggml"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a header says of the tokens; None where it has no key for it.

    + kind: of the tokenizer; + bos, eos: ids of the tokens that begin and end a text
    + adds_bos, adds_eos: whether the tokenizer adds them
    """

    kind: str | None = None
    tokens: int | None = None
    bos: int | None = None
    eos: int | None = None
    adds_bos: bool | None = None
    adds_eos: bool | None = None


def read_vocabulary(metadata: Mapping[str, Value]) -> Vocabulary:
    """The vocabulary of a header's keys."""

    def number(name: str) -> int | None:
        found = metadata.get(f"{_KEYS}.{name}")
        return found if isinstance(found, int) and not isinstance(found, bool) else None

    def flag(name: str) -> bool | None:
        found = metadata.get(f"{_KEYS}.{name}")
        return found if isinstance(found, bool) else None

    kind, tokens = metadata.get(f"{_KEYS}.model"), metadata.get(f"{_KEYS}.tokens")
    return Vocabulary(
        kind=kind if isinstance(kind, str) else None,
        tokens=tokens.count if isinstance(tokens, ArrayOf) else None,
        bos=number("bos_token_id"),
        eos=number("eos_token_id"),
        adds_bos=flag("add_bos_token"),
        adds_eos=flag("add_eos_token"),
    )


def difference(main: Vocabulary, draft: Vocabulary) -> str:
    """Why the server would refuse the draft model; empty where the headers do not show it."""
    if _differ(main.kind, draft.kind):
        return f"its tokenizer is {draft.kind}, the model's is {main.kind}"
    if main.tokens and draft.tokens and abs(main.tokens - draft.tokens) > _MOST_MORE_TOKENS:
        return f"it has {draft.tokens} tokens, the model has {main.tokens}"
    for name, adds, ids in (
        ("begins", (main.adds_bos, draft.adds_bos), (main.bos, draft.bos)),
        ("ends", (main.adds_eos, draft.adds_eos), (main.eos, draft.eos)),
    ):
        if _differ(*adds):
            return f"{_who(adds[1])} alone adds the token that {name} a text"
        if all(adds) and _differ(*ids):
            return f"its texts {name[:-1]} with token {ids[1]}, the model's with {ids[0]}"
    return ""


def _differ(one: object, other: object) -> bool:
    return one is not None and other is not None and one != other


def _who(is_draft: object) -> str:
    return "it" if is_draft else "the model"
