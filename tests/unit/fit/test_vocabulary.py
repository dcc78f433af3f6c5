"""A draft model with other tokens than its main model is refused from the headers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from corral.fit.gguf import ArrayOf
from corral.fit.header_file import StoredHeader, decode, encode
from corral.fit.vocabulary import Vocabulary, difference, read_vocabulary
from tests.unit.fit.test_host import candidate, fit, refusal
from tests.unit.fit_samples import AIR, DENSE, header, model

MAIN = Vocabulary(kind="gpt2", tokens=151552, bos=151331, eos=151329, adds_bos=True, adds_eos=False)


def test_a_real_header_has_it_and_keeps_it_in_the_store() -> None:
    whole = header(AIR)
    assert read_vocabulary(whole.metadata) == model(AIR).vocabulary
    assert (model(AIR).vocabulary.kind, model(AIR).vocabulary.tokens) == ("gpt2", 151552)
    kept = decode(encode(StoredHeader(whole, "0" * 64)))
    assert kept
    assert read_vocabulary(kept.header.metadata) == model(AIR).vocabulary


def test_values_of_another_kind_are_not_read() -> None:
    odd = {f"tokenizer.ggml.{n}": 1 for n in ("model", "tokens", "add_bos_token")}
    assert read_vocabulary({**odd, "tokenizer.ggml.bos_token_id": True}) == Vocabulary()
    tokens = read_vocabulary({"tokenizer.ggml.tokens": ArrayOf("string", 7)})
    assert tokens == Vocabulary(tokens=7)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, ""),
        ({"tokens": 151424}, ""),
        ({"tokens": 151423}, "it has 151423 tokens, the model has 151552"),
        ({"kind": "llama"}, "its tokenizer is llama, the model's is gpt2"),
        ({"adds_bos": False}, "the model alone adds the token that begins a text"),
        ({"adds_eos": True}, "it alone adds the token that ends a text"),
        ({"bos": 1}, "its texts begin with token 1, the model's with 151331"),
        # It is not added, so it makes no difference.
        ({"eos": 1}, ""),
        ({"kind": None, "tokens": None, "bos": None, "adds_bos": None}, ""),
    ],
)
def test_what_the_engine_refuses_is_said(changed: dict[str, Any], said: str) -> None:
    assert difference(MAIN, replace(MAIN, **changed)) == said


def test_a_profile_with_a_foreign_draft_model_is_refused_before_a_byte_is_fetched() -> None:
    main, kept = replace(model(AIR), vocabulary=MAIN), {"draft_model": "tiny/F16"}
    drafting: dict[str, Any] = {**kept, "placement": "auto"}
    foreign = replace(main, draft=replace(model(DENSE), vocabulary=replace(MAIN, tokens=32000)))
    error = refusal(candidate(of=foreign, **drafting), memory_mib=10**6)
    assert error.what == (
        "draft_model tiny/F16 cannot draft for this model: it has 32000 tokens, the model has "
        "151552"
    )
    assert error.next_step == "choose a draft_model of the same family, or remove it"
    own = replace(main, draft=replace(model(DENSE), vocabulary=MAIN))
    assert fit(candidate(of=own, **drafting), memory_mib=10**6)
