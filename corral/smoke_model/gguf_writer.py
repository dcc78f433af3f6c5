"""Writer of a tiny GLM mixture-of-experts model that real engines load and serve.

It has the architecture, tokenizer family and file layout of the GLM-4.5 GGUF repositories. Weights
come from a hash stream: the files are the same bytes everywhere, so their digests can be pinned.
Tensor names and keys follow llama.cpp's glm4-moe (commit 0c1e570) and gguf 0.19.
"""

from __future__ import annotations

import math
from pathlib import Path

import gguf
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType

from corral.smoke_model import weights
from corral.smoke_model.byte_tokens import (
    CONTEXT_TOKENS,
    MERGED_TOKENS,
    MERGES,
    PRINTABLE,
    SPECIAL_TOKENS,
    byte_tokens,
)

NAME = "Tiny-GLM-MoE"
_CHAT_TEMPLATE = (
    "[gMASK]<sop>"
    "{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def write(folder: Path, *, letters: bytes = PRINTABLE) -> None:
    """Write the F16 quant as two shards and the Q8_0 quant as one file below `folder`.

    + folder: created when missing; files of the same names are overwritten
    + letters: the bytes that replies consist of; a single one gives gibberish
    """
    _write_quant(folder, GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16, letters, shards=2)
    _write_quant(folder, GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0, letters, shards=1)


def _write_quant(
    folder: Path,
    quant: GGMLQuantizationType,
    file_type: LlamaFileType,
    letters: bytes,
    *,
    shards: int,
) -> None:
    path = folder / quant.name / f"{NAME}-{quant.name}.gguf"
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = dict(weights.tensors(_allowed(letters)))
    tensors_per_shard = math.ceil(len(tensors) / shards) if shards > 1 else 0
    writer = GGUFWriter(path, "glm4moe", split_max_tensors=tensors_per_shard)
    _add_metadata(writer, file_type)
    for name, values in tensors.items():
        stored = quant if _is_matrix(name) else GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quantize(values, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _is_matrix(name: str) -> bool:
    """Whether llama-quantize would quantize this tensor: no norm, no bias, no router."""
    return name.endswith(".weight") and "norm" not in name and "ffn_gate_inp" not in name


def _add_metadata(writer: GGUFWriter, file_type: LlamaFileType) -> None:
    writer.add_type("model")
    writer.add_name(NAME.replace("-", " "))
    writer.add_file_type(file_type)
    writer.add_quantization_version(2)
    writer.add_block_count(weights.BLOCKS)
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(weights.WIDTH)
    writer.add_feed_forward_length(weights.DENSE_WIDTH)
    writer.add_layer_norm_rms_eps(1e-5)
    _add_attention(writer)
    _add_experts(writer)
    _add_tokenizer(writer)


def _add_attention(writer: GGUFWriter) -> None:
    writer.add_head_count(weights.HEADS)
    writer.add_head_count_kv(weights.KV_HEADS)
    writer.add_key_length(weights.HEAD_WIDTH)
    writer.add_value_length(weights.HEAD_WIDTH)
    writer.add_rope_dimension_count(weights.HEAD_WIDTH // 2)
    writer.add_rope_freq_base(1_000_000.0)


def _add_experts(writer: GGUFWriter) -> None:
    writer.add_leading_dense_block_count(weights.DENSE_BLOCKS)
    writer.add_expert_count(weights.EXPERTS)
    writer.add_expert_used_count(weights.EXPERTS_USED)
    writer.add_expert_shared_count(weights.SHARED_EXPERTS)
    writer.add_expert_feed_forward_length(weights.EXPERT_WIDTH)
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    writer.add_expert_weights_scale(1.0)
    writer.add_expert_weights_norm(True)


def _add_tokenizer(writer: GGUFWriter) -> None:
    tokens = _tokens()
    kinds = [gguf.TokenType.NORMAL] * (len(tokens) - len(SPECIAL_TOKENS))
    kinds += [gguf.TokenType.CONTROL] * len(SPECIAL_TOKENS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("glm4")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(tokens.index("[gMASK]"))
    writer.add_eos_token_id(tokens.index("<|endoftext|>"))
    writer.add_eot_token_id(tokens.index("<|user|>"))
    writer.add_eom_token_id(tokens.index("<|observation|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(_CHAT_TEMPLATE)


def _tokens() -> list[str]:
    return [*byte_tokens(), *MERGED_TOKENS, *SPECIAL_TOKENS]


def _allowed(letters: bytes) -> list[bool]:
    """For every token, whether replies may contain it."""
    merged = [set(token.encode()) <= set(letters) for token in MERGED_TOKENS]
    return [byte in letters for byte in range(256)] + merged + [False] * len(SPECIAL_TOKENS)
