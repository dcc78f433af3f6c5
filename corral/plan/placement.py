"""Which tensors live on which device, and the memory that an instance needs on each."""

from __future__ import annotations

from typing import Literal

from corral.schema import Frozen


class ResolvedPlacement(Frozen):
    """Which tensors live on the GPUs, decided; 0 ``gpu_layers`` means nothing does."""

    gpu_layers: int | Literal["all"]
    experts_on_cpu: bool = False
    cpu_moe_layers: int = 0
    tensor_overrides: tuple[str, ...] = ()
    tensor_split: tuple[float, ...] = ()


class DeviceNeed(Frozen):
    """Memory that an instance needs on one device: weights and KV exactly, the rest bounded."""

    weights_mib: int
    kv_mib: int
    compute_mib: int
    runtime_mib: int

    @property
    def exact_mib(self) -> int:
        """The part that is no bound."""
        return self.weights_mib + self.kv_mib

    @property
    def total_mib(self) -> int:
        """All of it."""
        return self.weights_mib + self.kv_mib + self.compute_mib + self.runtime_mib


class InstanceNeed(Frozen):
    """What corral.fit says of an instance: each GPU of its set in order, and the host.

    + unknown: why it is not known, or known only in part; empty when all is known
    """

    gpus: tuple[DeviceNeed, ...] = ()
    host: DeviceNeed | None = None
    unknown: str = ""
