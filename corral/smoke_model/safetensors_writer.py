"""Writer of a tiny GLM mixture-of-experts repository in safetensors, which vLLM loads and serves.

It has the weights of the tiny GGUF model and one MTP layer, and the files of the GLM-4.5
repositories: shards, index, configuration, tokenizer and chat template. Random weights cannot call
a tool, so some tokens are followed by a certain next one (``_FOLLOWS``): a reply begins with a
reasoning part, or, where the request has tools, is the call of the one tool that it knows.
Names follow vLLM 0.32 (glm4_moe.py, glm4_moe_mtp.py) and transformers 5.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from corral.smoke_model import weights
from corral.smoke_model.byte_tokens import (
    CONTEXT_TOKENS,
    MERGED_TOKENS,
    MERGES,
    PRINTABLE,
    byte_tokens,
)
from corral.smoke_model.byte_tokens import SPECIAL_TOKENS as GGUF_SPECIAL_TOKENS
from corral.smoke_model.tokenizer import Added, tokenizer_json
from corral.smoke_model.weights import Array

DataType = Literal["bf16", "f32"]
NAME = "Tiny-GLM-MoE"
# The tool that it calls, and with what; another tool of a request is never called.
TOOL, TOOL_ARGUMENTS = "get_weather", {"city": "Paris"}

_THOUGHT = "Hm"
# Parts of the vocabulary that no text is split into: the model alone uses them.
_WHOLE_WORDS = (_THOUGHT, TOOL, *TOOL_ARGUMENTS, *TOOL_ARGUMENTS.values())
_CALLS_A_TOOL = "[call]"
_MARKS = (
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<arg_key>",
    "</arg_key>",
    "<arg_value>",
    "</arg_value>",
)
_SPECIAL_TOKENS = (*GGUF_SPECIAL_TOKENS, _CALLS_A_TOOL)
_TOKENS = (*byte_tokens(), *MERGED_TOKENS, *_WHOLE_WORDS, *_SPECIAL_TOKENS, *_MARKS)
_ENDS = ("<|endoftext|>", "<|user|>", "<|observation|>")

(_KEY,), (_VALUE,) = TOOL_ARGUMENTS, TOOL_ARGUMENTS.values()
_CHAINS = (
    ("<|assistant|>", "<think>", _THOUGHT, "</think>"),
    (
        *(_CALLS_A_TOOL, "<tool_call>", TOOL, "<arg_key>", _KEY, "</arg_key>"),
        *("<arg_value>", _VALUE, "</arg_value>", "</tool_call>", "<|observation|>"),
    ),
)
_FOLLOWS = tuple(pair for chain in _CHAINS for pair in zip(chain, chain[1:], strict=False))

# Each of these tokens has a channel of the hidden state, which blocks never write to. There its
# embedding is so loud that the output row of its successor beats all others.
_CHANNELS = {first: weights.WIDTH - 1 - n for n, (first, _) in enumerate(_FOLLOWS)}
_LOUD, _CERTAIN = 32.0, 100.0

_CHAT_TEMPLATE = """[gMASK]<sop>
{%- if tools %}<|system|>
# Tools
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}{% endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}<|observation|>
<tool_response>{{ message.content }}</tool_response>
{%- else %}<|{{ message.role }}|>
{{ message.content or '' }}
{%- for call in message.tool_calls or [] %}<tool_call>{{ call.function.name }}
{%- for key, value in call.function.arguments.items() %}<arg_key>{{ key }}</arg_key>
{#- #}<arg_value>{{ value }}</arg_value>
{%- endfor %}</tool_call>
{%- endfor %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|assistant|>
{%- if enable_thinking is defined and not enable_thinking %}
<think></think>
{%- endif %}
{%- if tools and messages[-1].role != 'tool' %}[call]{% endif %}
{%- endif %}"""


def write(folder: Path, kind: DataType, *, shards: int = 1) -> None:
    """Write the repository's files of one data type to ``folder``, which is created.

    The same bytes everywhere. Files of the same names are overwritten.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = dict(_tensors())
    names = list(tensors)
    per_shard = math.ceil(len(names) / shards)
    weight_map: dict[str, str] = {}
    for number in range(shards):
        part = names[number * per_shard : (number + 1) * per_shard]
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        file = "model.safetensors" if shards == 1 else file
        (folder / file).write_bytes(_file({name: tensors[name] for name in part}, kind))
        weight_map |= dict.fromkeys(part, file)
    if shards > 1:
        size = sum(len(_stored(name, tensors[name], kind)[1]) for name in names)
        index = {"metadata": {"total_size": size}, "weight_map": weight_map}
        _write_json(folder / "model.safetensors.index.json", index)
    for file, document in _documents(kind).items():
        _write_json(folder / file, document)
    (folder / "chat_template.jinja").write_text(_CHAT_TEMPLATE)


def _file(tensors: Mapping[str, Array], kind: DataType) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = bytearray()
    for name, values in tensors.items():
        dtype, stored = _stored(name, values, kind)
        offsets = [len(data), len(data) + len(stored)]
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": offsets}
        data += stored
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(data)


def _stored(name: str, values: Array, kind: DataType) -> tuple[str, bytes]:
    """Type and bytes of a tensor; the correction of the router is f32 in each repository."""
    if kind == "f32" or name.endswith("e_score_correction_bias"):
        return "F32", values.astype("<f4").tobytes()
    bits = values.astype("<f4").view("<u4")
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    return "BF16", (rounded >> 16).astype("<u2").tobytes()


def _tensors() -> Iterator[tuple[str, Array]]:
    """Tensors of the tiny GGUF model by the names of transformers, and an MTP layer."""
    printable = set(PRINTABLE)
    allowed = [byte in printable for byte in range(256)]
    allowed += [True] * len(MERGED_TOKENS)
    allowed += [False] * (len(_TOKENS) - len(allowed))
    named = dict(weights.tensors(allowed))
    embeddings, output = _embeddings(named["token_embd.weight"]), _output(named["output.weight"])
    yield "model.embed_tokens.weight", embeddings
    for block in range(weights.BLOCKS):
        prefix = f"blk.{block}."
        parts = {n.removeprefix(prefix): v for n, v in named.items() if n.startswith(prefix)}
        yield from _block(block, parts)
    yield "model.norm.weight", named["output_norm.weight"]
    yield "lm_head.weight", output
    last = weights.BLOCKS - 1
    prefix = f"blk.{last}."
    parts = {n.removeprefix(prefix): v for n, v in named.items() if n.startswith(prefix)}
    yield from _block(weights.BLOCKS, parts)
    yield from _next_token(f"model.layers.{weights.BLOCKS}", embeddings, output)


def _embeddings(values: Array) -> Array:
    values[:, list(_CHANNELS.values())] = 0.0
    for token, channel in _CHANNELS.items():
        values[_TOKENS.index(token), channel] = _LOUD
    return values


def _output(rows: Array) -> Array:
    rows[:, list(_CHANNELS.values())] = 0.0
    for first, then in _FOLLOWS:
        rows[_TOKENS.index(then), _CHANNELS[first]] = _CERTAIN
    return rows


_RENAMED = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "post_attention_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate_inp.weight": "mlp.gate.weight",
    "exp_probs_b.bias": "mlp.gate.e_score_correction_bias",
} | {
    f"attn_{letter}.{part}": f"self_attn.{letter}_proj.{part}"
    for letter in "qkv"
    for part in ("weight", "bias")
}


def _block(block: int, parts: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
    prefix = f"model.layers.{block}"
    for name, values in parts.items():
        if name in _RENAMED:
            yield f"{prefix}.{_RENAMED[name]}", _without_channels(name, values)
            continue
        part, _, suffix = name.removeprefix("ffn_").removesuffix(".weight").partition("_")
        stored = _without_channels(name, values)
        if suffix == "exps":
            for expert in range(weights.EXPERTS):
                yield f"{prefix}.mlp.experts.{expert}.{part}_proj.weight", stored[expert]
        else:
            shared = ".shared_experts" if suffix == "shexp" else ""
            yield f"{prefix}.mlp{shared}.{part}_proj.weight", stored


def _without_channels(name: str, values: Array) -> Array:
    """What a block adds to the hidden state leaves the channels of ``_CHANNELS`` alone."""
    if name.startswith(("attn_output", "ffn_down")):
        values[..., list(_CHANNELS.values()), :] = 0.0
    return values


def _next_token(prefix: str, embeddings: Array, output: Array) -> Iterator[tuple[str, Array]]:
    """An MTP layer that sees the embedding of the last token alone."""
    width = weights.WIDTH
    ones = np.ones(width, np.float32)
    joined = np.concatenate([np.eye(width), np.zeros((width, width))], axis=1)
    yield f"{prefix}.eh_proj.weight", joined.astype(np.float32)
    yield f"{prefix}.enorm.weight", ones
    yield f"{prefix}.hnorm.weight", ones
    yield f"{prefix}.embed_tokens.weight", embeddings
    yield f"{prefix}.shared_head.norm.weight", ones
    yield f"{prefix}.shared_head.head.weight", output


def _documents(kind: DataType) -> dict[str, Any]:
    numbers = [_TOKENS.index(token) for token in _ENDS]
    return {
        "config.json": _config(kind, numbers),
        "generation_config.json": {"eos_token_id": numbers, "pad_token_id": numbers[0]},
        "tokenizer.json": _tokenizer(),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": CONTEXT_TOKENS,
            "eos_token": _ENDS[0],
            "pad_token": _ENDS[0],
            "clean_up_tokenization_spaces": False,
        },
    }


def _config(kind: DataType, ends: Sequence[int]) -> dict[str, Any]:
    return {
        "architectures": ["Glm4MoeForCausalLM"],
        "model_type": "glm4_moe",
        "dtype": {"bf16": "bfloat16", "f32": "float32"}[kind],
        "vocab_size": len(_TOKENS),
        "max_position_embeddings": CONTEXT_TOKENS,
        "hidden_act": "silu",
        "hidden_size": weights.WIDTH,
        "intermediate_size": weights.DENSE_WIDTH,
        "num_hidden_layers": weights.BLOCKS,
        "num_nextn_predict_layers": 1,
        "num_attention_heads": weights.HEADS,
        "num_key_value_heads": weights.KV_HEADS,
        "head_dim": weights.HEAD_WIDTH,
        "attention_bias": True,
        "use_qk_norm": False,
        "partial_rotary_factor": 0.5,
        "rope_theta": 1000000.0,
        "rms_norm_eps": 1e-05,
        "first_k_dense_replace": weights.DENSE_BLOCKS,
        "n_routed_experts": weights.EXPERTS,
        "n_shared_experts": weights.SHARED_EXPERTS,
        "num_experts_per_tok": weights.EXPERTS_USED,
        "moe_intermediate_size": weights.EXPERT_WIDTH,
        "n_group": 1,
        "topk_group": 1,
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.0,
        "tie_word_embeddings": False,
        "eos_token_id": list(ends),
        "pad_token_id": ends[0],
    }


def _tokenizer() -> dict[str, Any]:
    """The marks of reasoning and tools stay in replies."""
    added = [
        Added(_TOKENS.index(token), token, special=token in _SPECIAL_TOKENS)
        for token in (*_SPECIAL_TOKENS, *_MARKS)
    ]
    return tokenizer_json(_TOKENS, added, MERGES)


def _write_json(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
