"""Versions of CUDA and of NVIDIA's driver, and their compatibility."""

from __future__ import annotations

# Toolkit -> minimum driver. Source: "CUDA Toolkit and Corresponding Driver Versions" in NVIDIA's
# CUDA release notes (13.0). Check the table again when adding a row.
_MINIMUM_DRIVER = {
    "11.8": "520.61",
    "12.0": "525.60",
    "12.4": "550.54",
    "12.6": "560.28",
    "12.8": "570.26",
    "12.9": "575.51",
    "13.0": "580.65",
}
# Compute capability -> the first toolkit that builds for it. Source: the same release notes, and
# "GPU Compilation" of nvcc's documentation. A GPU that is not here is refused: CMake would fail
# after minutes, or build for another architecture.
_FIRST_TOOLKIT = {
    **dict.fromkeys(("5.0", "5.2"), "7.0"),
    **dict.fromkeys(("6.0", "6.1"), "8.0"),
    "7.0": "9.0",
    "7.5": "10.0",
    "8.0": "11.0",
    "8.6": "11.1",
    **dict.fromkeys(("8.9", "9.0"), "11.8"),
    **dict.fromkeys(("10.0", "12.0"), "12.8"),
    **dict.fromkeys(("10.3", "12.1"), "12.9"),
}
# And the first that no longer does.
_DROPPED_BY = dict.fromkeys(("5.0", "5.2", "6.0", "6.1", "7.0"), "13.0")
# The open kernel modules drive Turing and later. Source: README of open-gpu-kernel-modules.
_OPEN_MODULES_FROM = "7.5"


def key(version: str) -> tuple[int, ...]:
    """A version such as ``570.26`` or ``580.*`` as numbers, for comparison."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def at_least(version: str, minimum: str) -> bool:
    """Whether ``version`` is at least ``minimum``, by their common parts: 580.* meets 580.65."""
    ours, least = key(version), key(minimum)
    length = min(len(ours), len(least))
    return ours[:length] >= least[:length]


def same(one: str, other: str) -> bool:
    """Whether two version strings match; NVML reports 550.90 for library 550.90.07."""
    return at_least(one, other) and at_least(other, one)


def minimum_driver(toolkit: str) -> str:
    """The minimum driver for a toolkit; between two rows, the older row's; ``0`` if unknown."""
    rows = [row for row in _MINIMUM_DRIVER if key(row) <= key(toolkit)]
    return _MINIMUM_DRIVER[max(rows, key=key)] if rows else "0"


def minimum_toolkit(compute_capability: str) -> str:
    """The first toolkit that builds for a GPU. Raises KeyError unless ``is_known``."""
    return _FIRST_TOOLKIT[compute_capability]


def is_known(compute_capability: str) -> bool:
    """Whether it is known which toolkits build for a GPU."""
    return compute_capability in _FIRST_TOOLKIT


def open_modules_drive(compute_capability: str) -> bool:
    """Whether NVIDIA's open kernel modules drive a GPU."""
    return key(compute_capability) >= key(_OPEN_MODULES_FROM)


def builds_for(toolkit: str, compute_capability: str) -> bool:
    """Whether a toolkit builds for a GPU: neither too old nor too new for it."""
    dropped = _DROPPED_BY.get(compute_capability)
    return at_least(toolkit, minimum_toolkit(compute_capability)) and not (
        dropped and at_least(toolkit, dropped)
    )
