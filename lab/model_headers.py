"""Headers of real-sized GLM files without their weights, for fit and for the engines.

Shapes are those of the published models (config.json of each); the mix of tensor types is
simpler than a published quant's. The vocabulary has the real size, its tokens are numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type


@dataclass(frozen=True)
class Shape:
    """Dimensions of a model as its GGUF names them; ``q_lora`` 0: no latent attention.

    + key_length_mla: 0 for a file as they were before that key, with attn_kv_b in one tensor
    + linear_head: of the blocks with linear attention, 0 for none; + streams: residual streams
    + rope_sections: of the positions in time, height and width, in a model with images
    """

    arch: str
    blocks: int  # with the MTP blocks
    mtp_blocks: int
    embedding: int
    feed_forward: int
    heads: int
    kv_heads: int
    key_length: int
    value_length: int
    context_tokens: int
    vocabulary: int
    experts: int = 0
    experts_used: int = 0
    expert_feed_forward: int = 0
    dense_blocks: int = 0
    shared_experts: int = 1
    q_lora: int = 0
    kv_lora: int = 0
    key_length_mla: int = 0
    value_length_mla: int = 0
    rope: int = 64
    indexer_heads: int = 0
    indexer_key_length: int = 0
    indexer_top_k: int = 0
    indexer_pool: int = 0
    linear_head: int = 0
    linear_period: int = 4
    conv_kernel: int = 4
    streams: int = 1
    rope_sections: tuple[int, ...] = ()

    def is_linear(self, block: int) -> bool:
        """Whether a block has linear attention: all but the last of each period."""
        is_main = block < self.blocks - self.mtp_blocks
        return bool(self.linear_head) and is_main and (block + 1) % self.linear_period != 0


GLM_4_32B = Shape(
    arch="glm4", blocks=61, mtp_blocks=0, embedding=6144, feed_forward=23040, heads=48,
    kv_heads=2, key_length=128, value_length=128, context_tokens=32768, vocabulary=151552,
)  # fmt: skip
# The text part of GLM-4.6V-Flash; dimensions are those of its config.json.
GLM_4_6V_FLASH = Shape(
    arch="glm4", blocks=40, mtp_blocks=0, embedding=4096, feed_forward=13696, heads=32,
    kv_heads=2, key_length=128, value_length=128, context_tokens=131072, vocabulary=151552,
    rope_sections=(8, 12, 12, 0),
)  # fmt: skip
GLM_4_5_AIR = Shape(
    arch="glm4moe", blocks=47, mtp_blocks=1, embedding=4096, feed_forward=10944, heads=96,
    kv_heads=8, key_length=128, value_length=128, context_tokens=131072, vocabulary=151552,
    experts=128, experts_used=8, expert_feed_forward=1408, dense_blocks=1,
)  # fmt: skip
GLM_4_7 = Shape(
    arch="glm4moe", blocks=93, mtp_blocks=1, embedding=5120, feed_forward=12288, heads=96,
    kv_heads=8, key_length=128, value_length=128, context_tokens=202752, vocabulary=151552,
    experts=160, experts_used=8, expert_feed_forward=1536, dense_blocks=3,
)  # fmt: skip
GLM_4_7_FLASH = Shape(
    arch="deepseek2", blocks=48, mtp_blocks=1, embedding=2048, feed_forward=10240, heads=20,
    kv_heads=1, key_length=576, value_length=512, context_tokens=202752, vocabulary=154880,
    experts=64, experts_used=4, expert_feed_forward=1536, dense_blocks=1,
    q_lora=768, kv_lora=512, key_length_mla=256, value_length_mla=256,
)  # fmt: skip
DEEPSEEK_V2_5 = Shape(
    arch="deepseek2", blocks=60, mtp_blocks=0, embedding=5120, feed_forward=12288, heads=128,
    kv_heads=1, key_length=576, value_length=512, context_tokens=163840, vocabulary=102400,
    experts=160, experts_used=6, expert_feed_forward=1536, dense_blocks=1, shared_experts=2,
    q_lora=1536, kv_lora=512, key_length_mla=192, value_length_mla=128,
)  # fmt: skip


# GLM-5 and 5.1; dimensions are those of transformers' GlmMoeDsaConfig.
GLM_5 = Shape(
    arch="glm-dsa", blocks=79, mtp_blocks=1, embedding=6144, feed_forward=12288, heads=64,
    kv_heads=1, key_length=576, value_length=512, context_tokens=202752, vocabulary=154880,
    experts=256, experts_used=8, expert_feed_forward=2048, dense_blocks=3,
    q_lora=2048, kv_lora=512, key_length_mla=256, value_length_mla=256,
    indexer_heads=32, indexer_key_length=128, indexer_top_k=2048,
)  # fmt: skip
# The same with a longer context: blocks share indexers by the engine's own list for it.
GLM_5_2 = replace(GLM_5, context_tokens=1048576)
# GLM-5.3-Flash; dimensions are those of transformers' Glm5NextTextConfig.
GLM_5_3_FLASH = Shape(
    arch="glm5-next", blocks=46, mtp_blocks=1, embedding=4096, feed_forward=12288, heads=64,
    kv_heads=1, key_length=512, value_length=512, context_tokens=1048576, vocabulary=154880,
    experts=288, experts_used=8, expert_feed_forward=2048, dense_blocks=3, rope=0,
    q_lora=1536, kv_lora=512, key_length_mla=256, value_length_mla=256,
    indexer_heads=32, indexer_key_length=128, indexer_top_k=2048, indexer_pool=16,
    linear_head=128, streams=4,
)  # fmt: skip


@dataclass(frozen=True)
class Mix:
    """Tensor types of a quant: experts, the rest, token embeddings, output."""

    experts: Type = Type.Q4_K
    experts_down: Type = Type.Q5_K
    dense: Type = Type.Q8_0
    embeddings: Type = Type.Q4_K
    output: Type = Type.Q6_K


PUBLISHED = Mix()


def write_header(path: Path, shape: Shape, mix: Mix = PUBLISHED, *, vocabulary: bool = True) -> int:
    """Write a header to ``path``, extend it with holes to the full size, and return that size.

    Without ``vocabulary`` the tokens are left out (the file is small; engines refuse it).
    """
    writer = gguf.GGUFWriter(path, shape.arch)
    _write_keys(writer, shape)
    if vocabulary:
        _write_vocabulary(writer, shape.vocabulary)
    size_bytes = _write_tensors(writer, shape, mix)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    header_bytes = path.stat().st_size
    start = -(-header_bytes // 32) * 32
    with path.open("r+b") as file:
        file.truncate(start + size_bytes)
    return start + size_bytes


def _write_keys(writer: gguf.GGUFWriter, s: Shape) -> None:
    writer.add_block_count(s.blocks)
    writer.add_context_length(s.context_tokens)
    writer.add_embedding_length(s.embedding)
    writer.add_feed_forward_length(s.feed_forward)
    writer.add_head_count(s.heads)
    linear = [s.is_linear(block) for block in range(s.blocks)]
    kv_heads = [0 if flag else s.kv_heads for flag in linear]
    writer.add_head_count_kv(kv_heads if any(linear) else s.kv_heads)
    writer.add_key_length(s.key_length)
    writer.add_value_length(s.value_length)
    writer.add_rope_dimension_count(s.rope)
    writer.add_rope_freq_base(1000000.0)
    if s.rope_sections:
        writer.add_rope_dimension_sections(s.rope_sections)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(s.vocabulary)
    if s.experts:
        writer.add_expert_count(s.experts)
        writer.add_expert_used_count(s.experts_used)
        writer.add_expert_feed_forward_length(s.expert_feed_forward)
        writer.add_expert_shared_count(s.shared_experts)
        writer.add_leading_dense_block_count(s.dense_blocks)
        writer.add_expert_weights_scale(1.0)
        writer.add_expert_weights_norm(True)
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    if s.mtp_blocks:
        writer.add_nextn_predict_layers(s.mtp_blocks)
    if s.q_lora:
        writer.add_q_lora_rank(s.q_lora)
        writer.add_kv_lora_rank(s.kv_lora)
    if s.indexer_heads:
        prefix = f"{s.arch}.attention.indexer"
        writer.add_uint32(f"{prefix}.head_count", s.indexer_heads)
        writer.add_uint32(f"{prefix}.key_length", s.indexer_key_length)
        writer.add_uint32(f"{prefix}.top_k", s.indexer_top_k)
    if s.key_length_mla:
        writer.add_key_length_mla(s.key_length_mla)
        writer.add_value_length_mla(s.value_length_mla)
    if s.linear_head:
        _write_linear_keys(writer, s)


def _write_linear_keys(writer: gguf.GGUFWriter, s: Shape) -> None:
    writer.add_uint32(f"{s.arch}.attention.indexer.kpool", s.indexer_pool)
    writer.add_bool(f"{s.arch}.attention.indexer.kpool_select_tail", True)
    writer.add_uint32(f"{s.arch}.kda.head_dim", s.linear_head)
    writer.add_float32(f"{s.arch}.kda.gate_lower_bound", -5.0)
    writer.add_ssm_conv_kernel(s.conv_kernel)
    writer.add_uint32(f"{s.arch}.hyper_connection.count", s.streams)
    writer.add_uint32(f"{s.arch}.hyper_connection.sinkhorn_iterations", 20)
    writer.add_float32(f"{s.arch}.hyper_connection.epsilon", 1e-6)


def _write_vocabulary(writer: gguf.GGUFWriter, count: int) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("glm4")
    letters = [chr(i) for i in range(33, 127)] + [chr(i) for i in range(161, 173)]
    # A newline, as byte-level BPE writes it: ik_llama.cpp reads its logit before each sampling,
    # and without this token that of token -1.
    letters.append("\u010a")
    tokens = letters + [f"w{i}" for i in range(count - len(letters))]
    writer.add_token_list(tokens)
    writer.add_token_types([1] * count)
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(256)
    writer.add_bos_token_id(258)


def _write_tensors(writer: gguf.GGUFWriter, s: Shape, mix: Mix) -> int:
    """Write the entry of every tensor; returns the bytes of all of them, each padded to 32."""
    size_bytes = 0
    for name, shape, kind in _tensors(s, mix):
        block, type_size = gguf.GGML_QUANT_SIZES[kind]
        tensor_bytes = int(np.prod(shape)) // block * type_size
        # GGUFWriter expects numpy's order of dimensions, and bytes for quantized rows.
        row_bytes = shape[0] // block * type_size
        dims = tuple(reversed(shape[1:]))
        writer.add_tensor_info(
            name, (*dims, row_bytes if kind != Type.F32 else shape[0]),
            np.dtype(np.uint8 if kind != Type.F32 else np.float32), tensor_bytes,
            raw_dtype=kind,
        )  # fmt: skip
        size_bytes += -(-tensor_bytes // 32) * 32
    return size_bytes


Tensor = tuple[str, tuple[int, ...], Type]


def _tensors(s: Shape, mix: Mix) -> list[Tensor]:
    found: list[Tensor] = [
        ("token_embd.weight", (s.embedding, s.vocabulary), mix.embeddings),
        ("output_norm.weight", (s.embedding,), Type.F32),
        ("output.weight", (s.embedding, s.vocabulary), mix.output),
    ]
    for block in range(s.blocks):
        dense = not s.experts or block < s.dense_blocks
        attention = _linear_attention(s, mix) if s.is_linear(block) else _attention(s, mix)
        parts = attention + _feed_forward(s, mix, dense=dense)
        if block >= s.blocks - s.mtp_blocks:
            parts += _next_token(s, mix)
        elif s.streams > 1:
            parts += _streams(s)
        found += [(f"blk.{block}.{name}", shape, kind) for name, shape, kind in parts]
    return found


def _attention(s: Shape, mix: Mix) -> list[Tensor]:
    e, dense = s.embedding, mix.dense
    norm = "ffn_norm" if s.q_lora else "post_attention_norm"
    norms = [("attn_norm.weight", (e,), Type.F32), (f"{norm}.weight", (e,), Type.F32)]
    if not s.q_lora:
        q, kv = s.heads * s.key_length, s.kv_heads * s.key_length
        return [
            *norms,
            ("attn_q.weight", (e, q), dense),
            ("attn_k.weight", (e, kv), dense),
            ("attn_v.weight", (e, kv), dense),
            ("attn_q.bias", (q,), Type.F32),
            ("attn_k.bias", (kv,), Type.F32),
            ("attn_v.bias", (kv,), Type.F32),
            *_more_norms(s),
            ("attn_output.weight", (q, e), dense),
        ]
    key, value = s.key_length_mla or s.key_length, s.value_length_mla or s.value_length
    plain = key - s.rope
    kv_b: list[Tensor] = [
        ("attn_k_b.weight", (plain, s.kv_lora, s.heads), dense),
        ("attn_v_b.weight", (s.kv_lora, value, s.heads), dense),
    ]
    if not s.key_length_mla:
        kv_b = [("attn_kv_b.weight", (s.kv_lora, s.heads * (plain + value)), dense)]
    indexer: list[Tensor] = [
        ("indexer.k_norm.weight", (s.indexer_key_length,), Type.F32),
        ("indexer.k_norm.bias", (s.indexer_key_length,), Type.F32),
        ("indexer.proj.weight", (e, s.indexer_heads), Type.F32),
        ("indexer.attn_k.weight", (e, s.indexer_key_length), dense),
        ("indexer.attn_q_b.weight", (s.q_lora, s.indexer_heads * s.indexer_key_length), dense),
    ]
    if s.indexer_pool:
        indexer += [
            ("indexer_compressor_gate.weight", (e, s.indexer_key_length), dense),
            ("indexer_compressor_ape.weight", (s.indexer_key_length, s.indexer_pool), Type.F32),
        ]
    return [
        *norms,
        *(indexer if s.indexer_heads else ()),
        ("attn_q_a.weight", (e, s.q_lora), dense),
        ("attn_q_a_norm.weight", (s.q_lora,), Type.F32),
        ("attn_q_b.weight", (s.q_lora, s.heads * key), dense),
        ("attn_kv_a_mqa.weight", (e, s.kv_lora + s.rope), dense),
        ("attn_kv_a_norm.weight", (s.kv_lora,), Type.F32),
        *kv_b,
        ("attn_output.weight", (s.heads * value, e), dense),
    ]


def _more_norms(s: Shape) -> list[Tensor]:
    """Of each head, or in a dense model before and after the feed-forward part."""
    if s.arch == "glm4":
        return [
            (f"{name}.weight", (s.embedding,), Type.F32) for name in ("ffn_norm", "post_ffw_norm")
        ]
    return [
        ("attn_q_norm.weight", (s.key_length,), Type.F32),
        ("attn_k_norm.weight", (s.key_length,), Type.F32),
    ]


def _linear_attention(s: Shape, mix: Mix) -> list[Tensor]:
    e, head, width = s.embedding, s.linear_head, s.linear_head * s.heads
    conv = (s.conv_kernel, 1, width)
    return [
        ("attn_norm.weight", (e,), Type.F32),
        ("ffn_norm.weight", (e,), Type.F32),
        *((f"ssm_conv1d_{part}.weight", conv, Type.F32) for part in "qkv"),
        *((f"attn_{part}.weight", (e, width), mix.dense) for part in "qkv"),
        *((f"ssm_{part}_a.weight", (e, head), mix.dense) for part in "fg"),
        *((f"ssm_{part}_b.weight", (head, width), mix.dense) for part in "fg"),
        ("ssm_beta.weight", (e, s.heads), mix.dense),
        ("ssm_a", (s.heads,), Type.F32),
        ("ssm_dt.bias", (width,), Type.F32),
        ("ssm_norm.weight", (head,), Type.F32),
        ("attn_output.weight", (width, e), mix.dense),
    ]


def _streams(s: Shape) -> list[Tensor]:
    mixed = (2 + s.streams) * s.streams
    return [
        tensor
        for part in ("attn", "ffn")
        for tensor in (
            (f"hc_{part}_fn.weight", (s.streams * s.embedding, mixed), Type.F32),
            (f"hc_{part}_base.weight", (mixed,), Type.F32),
            (f"hc_{part}_scale.weight", (3,), Type.F32),
        )
    ]


def _feed_forward(s: Shape, mix: Mix, *, dense: bool) -> list[Tensor]:
    e = s.embedding
    if s.arch == "glm4":  # gate and up in one
        return [
            ("ffn_up.weight", (e, 2 * s.feed_forward), mix.dense),
            ("ffn_down.weight", (s.feed_forward, e), mix.dense),
        ]
    if dense:
        return [
            ("ffn_gate.weight", (e, s.feed_forward), mix.dense),
            ("ffn_up.weight", (e, s.feed_forward), mix.dense),
            ("ffn_down.weight", (s.feed_forward, e), mix.dense),
        ]
    ff, shared = s.expert_feed_forward, s.expert_feed_forward * s.shared_experts
    return [
        ("ffn_gate_inp.weight", (e, s.experts), Type.F32),
        ("exp_probs_b.bias", (s.experts,), Type.F32),
        ("ffn_gate_exps.weight", (e, ff, s.experts), mix.experts),
        ("ffn_up_exps.weight", (e, ff, s.experts), mix.experts),
        ("ffn_down_exps.weight", (ff, e, s.experts), mix.experts_down),
        ("ffn_gate_shexp.weight", (e, shared), mix.dense),
        ("ffn_up_shexp.weight", (e, shared), mix.dense),
        ("ffn_down_shexp.weight", (shared, e), mix.dense),
    ]


def _next_token(s: Shape, mix: Mix) -> list[Tensor]:
    e = s.embedding
    return [
        ("nextn.eh_proj.weight", (2 * e, e), mix.dense),
        ("nextn.enorm.weight", (e,), Type.F32),
        ("nextn.hnorm.weight", (e,), Type.F32),
        ("nextn.shared_head_norm.weight", (e,), Type.F32),
    ]
