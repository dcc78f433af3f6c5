"""Compute buffers of linear attention beside sparse attention (GLM-5.3-Flash, glm5-next).

Source: glm5-next.cpp, delta-net-base.cpp and llama-memory-hybrid-idx.cpp of llama.cpp at
0c1e57098bba. Each bound is of what is alive together at one point of the graph. Compared with the
buffers that the server reports on the CPU: lab/count_cpu.py, tests/data/cpu-compute.csv. CUDA has
all operations of this graph, so that a GPU computes the same one; it was not measured there.
"""

from __future__ import annotations

from dataclasses import dataclass

from corral.catalog.profile import Profile
from corral.fit.shape import Indexer, Latent, Recurrent, Shape

_F32, _F16 = 4, 2
# Of queries, keys, values, gates, their convolutions and the result: rows of all heads.
_LINEAR_ROWS = 10
# While pools are built: key and gate of each token, their products and the weights; in half rows.
_POOLED_HALF_ROWS = 9


@dataclass(frozen=True, slots=True)
class Hybrid:
    """Buffers of one batch; ``cells``: that attention sees, ``all_cells``: of all slots."""

    shape: Shape
    recurrent: Recurrent
    indexer: Indexer
    mla: Latent
    profile: Profile
    cells: int
    all_cells: int

    def graph_bytes(self) -> int:
        """Upper bound, without the mask and the residual stream of the usual graph."""
        streams = self.shape.streams * self._tokens(self.shape.embedding)
        return streams + max(self._linear() + streams, self._sparse(), self._pooling())

    def _linear(self) -> int:
        return _LINEAR_ROWS * self._tokens(self.shape.heads * self.recurrent.head)

    def _sparse(self) -> int:
        """Queries, results, and masks of the selected tokens; without flash attention scores."""
        alive = self._tokens(self.shape.heads * (self.mla.rank + self.mla.key + self.mla.value))
        pools = self._tokens(self.cells // self.indexer.pool)
        if not self.profile.flash_attention:
            scores = self._tokens(self.shape.heads * self.cells)
            transposed = self.cells * self.mla.rank * _F16
            return alive + scores + transposed + 2 * self._tokens(self.cells) + 2 * pools
        mask = self._tokens(self.cells) // 2
        return alive + pools + (2 if self.profile.kv_type_k == "f16" else 3) * mask

    def _pooling(self) -> int:
        """The first batch after a change pools the tokens of all slots."""
        return self.all_cells * self.indexer.key * _F32 * _POOLED_HALF_ROWS // 2

    def _tokens(self, width: int) -> int:
        return self.profile.ubatch_tokens * width * _F32
