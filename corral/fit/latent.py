"""Latent attention (MLA) as ik_llama.cpp computes it: by mla_mode, from parts made at load.

Source: llama_kv_cache_init and llm_prepare_mla of llama.cpp, build_deepseek2 of
llama-build-context.cpp, ggml_cuda_op_mul_mat of ggml-cuda.cu; ik_llama.cpp at 8337e4cd3861.
Compared with the buffers that its server reports on the CPU in every mode: lab/count_cpu.py,
tests/data/cpu-compute.csv.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from corral.catalog.profile import KvType, Profile
from corral.fit.devices import block_of
from corral.fit.ggml import KV_TYPES, TYPES, tensor_bytes
from corral.fit.gguf import Tensor
from corral.fit.shape import Latent

_F32, _F16 = 4, 2
MIB = 1024**2
_DEFAULT_MODE, _SCORES_MODE = 3, 2
# Smaller batches use the compressed cache as it is (pp_opt).
_PROMPT_TOKENS = 128
_F16_ID, _BF16_ID, _Q8_0_ID = 1, 30, 8
_UNQUANTIZED_IDS = (0, _F16_ID, _BF16_ID)
_K_B, _V_B, _KV_B = "attn_k_b.weight", "attn_v_b.weight", "attn_kv_b.weight"


def mode_of(profile: Profile) -> int:
    """The mode that the server uses."""
    return _DEFAULT_MODE if profile.mla_mode is None else profile.mla_mode


def made_at_load(tensors: Iterable[Tensor], mla: Latent, heads: int, mode: int) -> list[Tensor]:
    """Tensors that the server computes at load and keeps beside the file's.

    Each has the name of the tensor that it is computed from, so that it is on the same device.
    """
    blocks: dict[int, dict[str, Tensor]] = {}
    for tensor in tensors:
        block = block_of(tensor.name)
        if block is not None:
            blocks.setdefault(block, {})[tensor.name.partition(f"blk.{block}.")[2]] = tensor
    return [made for parts in blocks.values() for made in _made(parts, mla, heads, mode)]


def _made(parts: dict[str, Tensor], mla: Latent, heads: int, mode: int) -> Iterator[Tensor]:
    plain = mla.key - mla.rope
    k, v, whole = (parts.get(name) for name in (_K_B, _V_B, _KV_B))
    if whole and not k and mode > 0:
        k_type = whole.type_id if whole.type_id in _UNQUANTIZED_IDS else _Q8_0_ID
        yield Tensor(whole.name, (plain, mla.rank, heads), k_type, 0)
        yield Tensor(whole.name, (mla.rank, mla.value, heads), whole.type_id, 0)
    if k and v and not whole and mode != 1:
        types = {k.type_id, v.type_id}
        same = len(types) == 1 and types <= {_F16_ID, _BF16_ID}
        shape = (mla.rank, heads * (plain + mla.value))
        yield Tensor(k.name, shape, k.type_id if same else _Q8_0_ID, 0)


@dataclass(frozen=True, slots=True)
class Scratch:
    """Memory for attention beside the mask and the residual stream, of one batch.

    + cells: that attention sees; + on_gpu: CUDA copies a quantized cache to f16
    """

    mla: Latent
    heads: int
    profile: Profile
    cells: int
    on_gpu: bool

    @property
    def expands_prompts(self) -> bool:
        """Whether K and V of the whole cache are computed anew for each batch of a prompt."""
        tokens = self.profile.ubatch_tokens
        return (
            mode_of(self.profile) > 1 and self.profile.flash_attention and tokens >= _PROMPT_TOKENS
        )

    @property
    def has_scores(self) -> bool:
        """Whether K times Q is stored; mode 2 has no flash attention on the compressed cache."""
        if not self.profile.flash_attention:
            return True
        return mode_of(self.profile) == _SCORES_MODE and not self.expands_prompts

    def graph_bytes(self) -> int:
        """Upper bound in the compute buffer."""
        query = self._tokens(self.mla.key)
        if mode_of(self.profile) == 0:
            plain = 4 * query + self._tokens(self.mla.value)
            return plain + (self._scores() if self.has_scores else 0)
        if self.expands_prompts:
            # Results of some heads are joined with those before them.
            parts = 0 if self._at_once() == self.heads else 4 * self._tokens(self.mla.value)
            return 3 * query + self._expanded() + parts
        compressed = self._tokens(self.mla.rank + self.mla.rope) + self._tokens(self.mla.rank)
        alive = 2 * query + compressed
        if not self.has_scores:
            return alive
        transposed = 0 if mode_of(self.profile) == 1 else self._cache(self.mla.rank)
        return alive + self._scores() + transposed

    def pool_bytes(self) -> int:
        """Upper bound in CUDA's pools: cuBLAS gets f16 operands, and gives an f16 product."""
        if not (self.expands_prompts and self.on_gpu):
            return 0
        operand = self.cells * self.mla.rank
        product = self._at_once() * self._width() * self.cells * _F16
        weights = self.heads * self._width() * self.mla.rank * _F16
        converted = 0 if self.profile.kv_type_k == "f16" else operand * _F16
        return operand * _F32 + converted + weights + product

    def scores_pool_bytes(self) -> int:
        """Scores in f16 and what V makes of them, in CUDA's pools."""
        result = self.mla.value if mode_of(self.profile) == 0 else self.mla.rank
        return (self._scores() + self._tokens(result)) // 2 if self.has_scores else 0

    def _expanded(self) -> int:
        """K and V of some heads in f32, and then in the type that flash attention reads."""
        heads, kv_type = self._at_once(), self._expanded_type()
        parts = (self.mla.value, self.mla.key - self.mla.rope)
        copies = sum(_size(kv_type, self.cells, width) * heads for width in parts)
        return heads * self._width() * self.cells * _F32 + copies

    def _expanded_type(self) -> KvType:
        return "f16" if self.on_gpu else self.profile.kv_type_k

    def _at_once(self) -> int:
        """Heads whose K and V are expanded together: all, or as attention_max_batch_mib allows."""
        most_mib, heads = self.profile.attention_max_batch_mib, self.heads
        all_mib = heads * self._width() * self.cells * _F32 // MIB
        if not most_mib or all_mib <= most_mib:
            return heads
        parts = (n for n in range(2, heads) if heads % n == 0 and all_mib // n <= most_mib)
        return heads // next(parts, heads)

    def _scores(self) -> int:
        """K times Q of all heads, or of as many as attention_max_batch_mib allows."""
        one = self.cells * self.profile.ubatch_tokens * _F32
        # A small batch's are copied in another order.
        one *= 2 if self.profile.ubatch_tokens < _PROMPT_TOKENS else 1
        most_mib, all_mib = self.profile.attention_max_batch_mib, one * self.heads // MIB
        if not most_mib or most_mib >= all_mib:
            return one * self.heads
        steps = min(-(-all_mib // most_mib), self.heads)
        return one * -(-self.heads // steps) + self._tokens(self.mla.rank)

    def _width(self) -> int:
        return self.mla.key - self.mla.rope + self.mla.value

    def _tokens(self, width: int) -> int:
        return self.profile.ubatch_tokens * self.heads * width * _F32

    def _cache(self, width: int) -> int:
        return _size(self.profile.kv_type_v, self.cells, width)


def _size(kv_type: KvType, cells: int, width: int) -> int:
    """A row of the cache that is not a whole number of blocks counts as the next one."""
    kind = TYPES[KV_TYPES[kv_type]]
    padded = -(-width // kind.block_elements) * kind.block_elements
    return tensor_bytes(KV_TYPES[kv_type], (padded, cells))
