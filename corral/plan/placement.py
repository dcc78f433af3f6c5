"""Placement of tensors on devices, and the memory that an instance needs on each."""

from __future__ import annotations

from typing import Literal

from corral.schema import Frozen


class ResolvedPlacement(Frozen):
    """The decided placement of tensors; ``gpu_layers`` 0: none on the GPUs."""

    gpu_layers: int | Literal["all"]
    experts_on_cpu: bool = False
    cpu_moe_layers: int = 0
    tensor_overrides: tuple[str, ...] = ()
    tensor_split: tuple[float, ...] = ()


class DeviceNeed(Frozen):
    """Memory that an instance needs on one device: weights and KV exact, the rest upper bounds.

    + reserved_mib: a share of the device that the engine takes whatever it needs, 0 for none
    """

    weights_mib: int
    kv_mib: int
    compute_mib: int
    runtime_mib: int
    reserved_mib: int = 0

    @property
    def exact_mib(self) -> int:
        """The exact part: weights and KV cache, or the share that is taken in any case."""
        return max(self.weights_mib + self.kv_mib, self.reserved_mib)

    @property
    def total_mib(self) -> int:
        """The sum of all parts."""
        return self.weights_mib + self.kv_mib + self.compute_mib + self.runtime_mib


class InstanceNeed(Frozen):
    """Memory need of an instance, from corral.fit: each GPU of its GPU set in order, and the host.

    + unknown: why the need is unknown or incomplete; empty when it is complete
    """

    gpus: tuple[DeviceNeed, ...] = ()
    host: DeviceNeed | None = None
    unknown: str = ""
