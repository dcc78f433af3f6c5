"""An engine release as planned: its source, build and folder."""

from __future__ import annotations

from typing import Literal

from corral.catalog.entries import EngineKind
from corral.schema import Frozen


class Toolchain(Frozen):
    """The tools that build a release: a distribution's compiler and C library, nvcc's release."""

    platform: str
    compiler: str
    c_library: str
    cuda_toolkit: str | None


class Patch(Frozen):
    """A patch of an engine's sources; ``text``: contents of the patch file."""

    name: str
    text: str


class WheelPlan(Frozen):
    """A wheel to fetch, with its size and digest."""

    url: str
    file: str
    sha256: str
    size_bytes: int


class ReleasePlan(Frozen):
    """One engine release: its source, build and folder.

    + key: covers everything that decides the bytes; + native: built for its host's processor alone
    + wheels: of a Python environment, which is fetched, not built: it has no cmake options, targets
    or patches, and its commit is a digest of the wheels
    """

    engine: str
    kind: EngineKind
    key: str
    commit: str
    patches: tuple[Patch, ...] = ()
    source_url: str
    backend: Literal["cpu", "cuda"]
    cmake_options: tuple[str, ...]
    targets: tuple[str, ...]
    wheels: tuple[WheelPlan, ...] = ()
    toolchain: Toolchain
    native: bool = False
    folder: str
    scratch_bytes: int
