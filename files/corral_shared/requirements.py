"""A locked requirements file: one line ``name==version`` for each distribution, with hashes."""

from __future__ import annotations

import re

PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)", re.MULTILINE)
_SEPARATORS = re.compile(r"[-_.]+")


def normalized(name: str) -> str:
    """The name of a distribution as indexes spell it (PEP 503)."""
    return _SEPARATORS.sub("-", name).lower()


def pins(text: str) -> dict[str, str]:
    """Normalized name -> version. Of a name with several versions, for markers, the last one."""
    return {normalized(name): version for name, version in PIN.findall(text)}
