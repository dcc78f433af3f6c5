"""Runtimes: how the release of an instance is started. Other code calls ``runtime_of``."""

from __future__ import annotations

from corral.runtimes.apptainer import COMPRESSIONS, UNPACK, Apptainer, program_kind, unpacks
from corral.runtimes.base import Runtime, Start
from corral.runtimes.native import Native

_ALL: tuple[Runtime, ...] = (Native(), Apptainer())
_RUNTIMES = {one.kind: one for one in _ALL}


def runtime_of(kind: str) -> Runtime:
    """The runtime called ``kind`` in inventories; one that they can name exists."""
    return _RUNTIMES[kind]


__all__ = ["COMPRESSIONS", "UNPACK", "Runtime", "Start", "program_kind", "runtime_of", "unpacks"]
