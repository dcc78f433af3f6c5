"""The hosts of a lab as data: one line for each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """A stand-in GPU, as the host's `nvidia-smi` reports it."""

    name: str
    memory_total_mib: int
    memory_free_mib: int
    compute_capability: str
    driver_version: str


@dataclass(frozen=True)
class HostSpec:
    """Host n, counted from 1, with its stand-in GPUs."""

    n: int
    gpus: tuple[Gpu, ...] = ()


A100_40GB = Gpu(
    name="NVIDIA A100-PCIE-40GB",
    memory_total_mib=40960,
    memory_free_mib=40442,
    compute_capability="8.0",
    driver_version="580.159.04",
)

DESCRIBED = (
    HostSpec(1),
    HostSpec(2),
    HostSpec(3, gpus=(A100_40GB,)),
)


def host_spec(n: int) -> HostSpec:
    """The description of host n; a host that is not described has no GPU."""
    return next((spec for spec in DESCRIBED if spec.n == n), HostSpec(n))
