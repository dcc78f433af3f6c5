"""The ways in which GPUs can share a model."""

from __future__ import annotations

from corral.engines.base import ParallelChoice


def parallel_choices(gpus: int) -> list[ParallelChoice]:
    """All products of tensor and data parallelism that use ``gpus`` GPUs, by fewer copies."""
    plain = [
        ParallelChoice(tensor_parallel=gpus // copies, data_parallel=copies)
        for copies in range(1, gpus + 1)
        if gpus % copies == 0
    ]
    if gpus < 2:
        return plain
    return [*plain, *(choice._replace(expert_parallel=True) for choice in plain)]
