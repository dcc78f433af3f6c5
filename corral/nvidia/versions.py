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
    "13.0": "580.65",
}
# Compute capability -> the first toolkit that builds for it, where that is newer than the oldest
# row above, and the first that no longer does. Source: the same release notes.
_FIRST_TOOLKIT = {"8.9": "11.8", "9.0": "11.8", "10.0": "12.8", "12.0": "12.8"}
_DROPPED_BY = {"5.0": "13.0", "5.2": "13.0", "6.0": "13.0", "6.1": "13.0", "7.0": "13.0"}


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
    """The first toolkit that builds for a GPU; ``0`` where every toolkit of the table does."""
    return _FIRST_TOOLKIT.get(compute_capability, "0")


def builds_for(toolkit: str, compute_capability: str) -> bool:
    """Whether a toolkit builds for a GPU: neither too old nor too new for it."""
    dropped = _DROPPED_BY.get(compute_capability)
    return at_least(toolkit, minimum_toolkit(compute_capability)) and not (
        dropped and at_least(toolkit, dropped)
    )
