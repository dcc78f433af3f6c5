"""An engine release as planned: where it comes from, how it is built, where it ends up."""

from __future__ import annotations

from typing import Literal

from corral.catalog.entries import EngineKind
from corral.schema import Frozen


class Toolchain(Frozen):
    """What a release is built with: a distribution's compiler and C library, and nvcc's release."""

    platform: str
    compiler: str
    c_library: str
    cuda_toolkit: str | None


class Patch(Frozen):
    """A change to an engine's sources; the text is that of a patch file."""

    name: str
    text: str


class WheelPlan(Frozen):
    """A wheel to fetch, and what its bytes must be."""

    url: str
    file: str
    sha256: str
    size_bytes: int


class ReleasePlan(Frozen):
    """One engine release: where it comes from, how it is built, where it ends up.

    + key: covers all that decides the bytes; + native: for the processor of its host alone
    + wheels: of a Python environment, which is fetched and not built: it has no cmake options, no
    targets and no patches, and its commit is a digest of the wheels
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
