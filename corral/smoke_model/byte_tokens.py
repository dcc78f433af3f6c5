"""The byte-level vocabulary of the tiny models."""

from __future__ import annotations

CONTEXT_TOKENS = 131072
PRINTABLE = bytes(range(0x20, 0x7F))
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "[MASK]",
    "[gMASK]",
    "[sMASK]",
    "<sop>",
    "<eop>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
)
# llama.cpp refuses a vocabulary without merges, so there is one, with its merged token.
MERGES = ("t h",)
MERGED_TOKENS = ("th",)


def byte_tokens() -> list[str]:
    """The characters by which a byte-level GPT-2 vocabulary writes each byte."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [value for value in range(256) if value not in shown]
    return [chr(b) if b in shown else chr(256 + hidden.index(b)) for b in range(256)]
