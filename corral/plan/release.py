"""An engine release as planned: what it is made of, how it is made, and its folder."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from corral_shared.requirements import pins
from pydantic import Field

from corral.catalog.entries import EngineKind
from corral.schema import Frozen

# For builds by cmake.
BUILD_PACKAGES = ("ccache", "cmake", "g++", "gcc", "git", "libgomp1", "ninja-build")


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


class CmakeBuild(Frozen):
    """Programs that a host compiles from a pinned commit."""

    kind: Literal["cmake-build"] = "cmake-build"
    source_url: str
    patches: tuple[Patch, ...] = ()
    cmake_options: tuple[str, ...]
    targets: tuple[str, ...]
    toolchain: Toolchain

    @property
    def platform(self) -> str:
        """The distribution that it is made on and runs on."""
        return self.toolchain.platform

    @property
    def cuda_toolkit(self) -> str | None:
        """The release of the CUDA toolkit that a build needs; None without CUDA."""
        return self.toolchain.cuda_toolkit

    @property
    def packages(self) -> tuple[str, ...]:
        """Packages of a host that makes it, CUDA's aside."""
        return BUILD_PACKAGES

    @property
    def programs(self) -> tuple[str, ...] | None:
        """All files of ``bin``."""
        return self.targets

    @property
    def decides_bytes(self) -> dict[str, Any]:
        """What the key covers beside commit and back end."""
        return {
            "patches": [[patch.name, patch.text] for patch in self.patches],
            "options": self.cmake_options,
            "targets": sorted(self.targets),
            "toolchain": self.toolchain.model_dump(),
        }

    @property
    def described(self) -> dict[str, str]:
        """Name -> value of what decides its bytes, to compare two releases for people."""
        options = (option.removeprefix("-D").partition("=") for option in self.cmake_options)
        return {
            "patches": ", ".join(patch.name for patch in self.patches) or "none",
            **{k.replace("_", " "): str(v) for k, v in self.toolchain.model_dump().items()},
            **{name: value for name, _, value in options},
        }

    @property
    def summary(self) -> str:
        """One line for `corral plan`."""
        return f"cmake {' '.join(self.cmake_options)}"

    def fetched_from(self, url: str) -> CmakeBuild:
        """The same, with another URL of its sources."""
        return self.model_copy(update={"source_url": url})


class PythonEnvironment(Frozen):
    """Locked distributions that a host installs with uv beside a copy of its interpreter.

    + requirements: the locked file, with hashes; + installer: the same for uv itself
    + index, find_links: where the host finds both; its own configured index without either
    + python: version of the platform's Python, such as 3.11
    """

    kind: Literal["python-environment"] = "python-environment"
    requirements: str
    requirements_sha256: str
    installer: str
    index: str | None = None
    find_links: str | None = None
    python: str
    platform: str

    @property
    def source_url(self) -> str:
        """Where its distributions come from, for people."""
        return self.index or self.find_links or "the index that the host is configured for"

    @property
    def cuda_toolkit(self) -> None:
        """None: the distributions contain the CUDA libraries that they need."""
        return

    @property
    def packages(self) -> tuple[str, ...]:
        """Packages of a host that makes it: pip installs uv, in an environment of its own."""
        return ("python3-venv",)

    @property
    def programs(self) -> tuple[str, ...] | None:
        """None: the distributions decide."""
        return None

    @property
    def decides_bytes(self) -> dict[str, Any]:
        """The platform and its Python: the commit is a digest of the requirements."""
        return {"artifact": self.kind, "platform": self.platform, "python": self.python}

    @property
    def described(self) -> dict[str, str]:
        """Name -> value of what decides its bytes, to compare two releases for people."""
        return {
            "requirements": self.requirements_sha256[:12],
            "python": self.python,
            "platform": self.platform,
        }

    @property
    def summary(self) -> str:
        """One line for `corral plan`."""
        count = len(pins(self.requirements))
        return f"{count} distributions in an environment of Python {self.python}"

    def fetched_from(self, url: str) -> PythonEnvironment:
        """The same, with another index; ``url``: of a mirror, or ``source_url``."""
        if url == self.source_url:
            return self
        return self.model_copy(update={"index": url, "find_links": None})


# A kind of artifact is one class here, one maker (MAKERS in corral_host.release.build) and, if its
# libraries can be proved, one entry of SELF_CONTAINED (corral_host.release.manifest).
Artifact = Annotated[CmakeBuild | PythonEnvironment, Field(discriminator="kind")]


class ReleaseLimits(Frozen):
    """Limits for an unpacked release, whatever its archive or wheels say."""

    unpacked_bytes: int
    unpacked_files: int


class ReleasePlan(Frozen):
    """One engine release: what it is made of, how it is made, and its folder.

    + key: covers everything that decides the bytes; + native: built for its host's processor alone
    + commit: of its sources, or a digest of what is pinned instead of sources
    + scratch_bytes: needed below the state while it is made; + installed_bytes: in its folder
    """

    engine: str
    kind: EngineKind
    key: str
    commit: str
    backend: Literal["cpu", "cuda"]
    artifact: Artifact
    native: bool = False
    folder: str
    scratch_bytes: int
    installed_bytes: int
    limits: ReleaseLimits
