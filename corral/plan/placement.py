"""Placement of tensors on devices, and the memory that an instance needs on each."""

from __future__ import annotations

from typing import Any, Literal

from corral.schema import Frozen


class ResolvedPlacement(Frozen):
    """The decided placement of tensors; ``gpu_layers`` 0: none on the GPUs."""

    gpu_layers: int | Literal["all"]
    experts_on_cpu: bool = False
    cpu_moe_layers: int = 0
    tensor_overrides: tuple[str, ...] = ()
    tensor_split: tuple[float, ...] = ()

    @property
    def summary(self) -> str:
        """The placement in words."""
        if self.gpu_layers == 0:
            return "nothing on GPUs"
        layers = "all layers" if self.gpu_layers == "all" else f"{self.gpu_layers} layers"
        on_host = ["all experts"] if self.experts_on_cpu else []
        if self.cpu_moe_layers:
            on_host.append(f"experts of the first {self.cpu_moe_layers} layers")
        on_host += [override.removesuffix("=CPU") for override in self.tensor_overrides]
        return f"{layers} on GPUs{', in host memory ' if on_host else ''}{', '.join(on_host)}"

    @property
    def as_keys(self) -> dict[str, Any]:
        """Keys of a profile that give this placement, instead of placement = "auto"."""
        if self.gpu_layers == 0:
            return {"placement": "cpu"}
        keys: dict[str, Any] = {"placement": "experts-on-cpu" if self.experts_on_cpu else "gpu"}
        if not self.experts_on_cpu:
            keys |= {"gpu_layers": self.gpu_layers} if self.gpu_layers != "all" else {}
            keys |= {"cpu_moe_layers": self.cpu_moe_layers} if self.cpu_moe_layers else {}
            keys |= {"tensor_overrides": [*self.tensor_overrides]} if self.tensor_overrides else {}
        return {**keys, **({"tensor_split": [*self.tensor_split]} if self.tensor_split else {})}


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
