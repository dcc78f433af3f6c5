"""Pins of packages' versions."""

from __future__ import annotations

from fnmatch import fnmatchcase


def fits(version: str, pinned: str) -> bool:
    """Whether the version of a package matches a pin as in apt; only the version has an epoch."""
    return fnmatchcase(version.rpartition(":")[2], pinned)
