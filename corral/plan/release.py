"""An engine release as planned: what it is made of, how it is made, and its folder."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from corral_shared.requirements import pins
from pydantic import Field

from corral.catalog.entries import EngineKind
from corral.schema import Frozen

# Raised when the helper makes other bytes of the same release (corral_host.release.image).
IMAGE_RECIPE = 2
ImageCompression = Literal["zstd", "gzip"]
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
    def image(self) -> str | None:
        """None: it runs from its folder."""
        return None

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
    def image(self) -> str | None:
        """None: it runs from its folder."""
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


class MadeImage(Frozen):
    """An image that a host makes of another release and a minimal root of its distribution.

    + of: that release, which the image has in the folder of this one
    + contents: packages of the distribution whose files make the root, with what they depend on
    + compression: of its squashfs; + image: its name in the folder of the release
    """

    kind: Literal["made-image"] = "made-image"
    of: ReleasePlan
    contents: tuple[str, ...]
    compression: ImageCompression = "zstd"
    image: Literal["image.squashfs"] = "image.squashfs"

    @property
    def platform(self) -> str:
        """The distribution that it is made on and runs on."""
        return self.of.artifact.platform

    @property
    def source_url(self) -> str:
        """Where the release in it comes from."""
        return self.of.artifact.source_url

    @property
    def cuda_toolkit(self) -> str | None:
        """The release of the CUDA toolkit that a build of the release in it needs."""
        return self.of.artifact.cuda_toolkit

    @property
    def packages(self) -> tuple[str, ...]:
        """Packages of a host that makes it."""
        own = (*self.of.artifact.packages, *self.contents, "squashfs-tools")
        return tuple(sorted({*own}))

    @property
    def programs(self) -> tuple[str, ...] | None:
        """All files of ``bin``."""
        return self.of.artifact.programs

    @property
    def decides_bytes(self) -> dict[str, Any]:
        """What the key covers beside commit and back end."""
        inside = self.of.artifact.decides_bytes
        root = {"platform": self.platform, "contents": self.contents, "recipe": IMAGE_RECIPE}
        if self.compression != "zstd":
            root["compression"] = self.compression
        return {"artifact": self.kind, "of": inside, "root": root}

    @property
    def described(self) -> dict[str, str]:
        """Name -> value of what decides its bytes, to compare two releases for people."""
        own = {"contents of the image": " ".join(self.contents), "compression": self.compression}
        return {**self.of.artifact.described, **own}

    @property
    def summary(self) -> str:
        """One line for `corral plan`."""
        return f"image of {self.of.key} and {' '.join(self.contents)}"

    def fetched_from(self, url: str) -> MadeImage:
        """The same, with another URL of the sources of the release in it."""
        inside = {**dict(self.of), "artifact": self.of.artifact.fetched_from(url)}
        return self.model_copy(update={"of": ReleasePlan(**inside)})


class OwnImage(Frozen):
    """An image of the site's own; ``source``: path of the file on hosts, or URL.

    + image: its name in the folder of the release; + program: path of the server in it
    """

    kind: Literal["own-image"] = "own-image"
    source: str
    sha256: str
    image: str
    program: str
    platform: str

    @property
    def source_url(self) -> str:
        """Where it comes from, for people."""
        return self.source

    @property
    def cuda_toolkit(self) -> None:
        """None: the image contains the CUDA libraries that it needs."""
        return

    @property
    def packages(self) -> tuple[str, ...]:
        """Packages of a host that makes it."""
        return ("curl",)

    @property
    def programs(self) -> tuple[str, ...] | None:
        """None: the site decides."""
        return None

    @property
    def decides_bytes(self) -> dict[str, Any]:
        """The server's path in it: the commit is a digest of the file."""
        return {"artifact": self.kind, "sha256": self.sha256, "program": self.program}

    @property
    def described(self) -> dict[str, str]:
        """Name -> value of what decides its bytes, to compare two releases for people."""
        return {"sha256": self.sha256[:12], "program": self.program}

    @property
    def summary(self) -> str:
        """One line for `corral plan`."""
        return f"image with sha256 {self.sha256}, {self.program} in it"

    def fetched_from(self, url: str) -> OwnImage:
        """The same, from another path or URL."""
        return self.model_copy(update={"source": url})


# A kind of artifact is one class here, one maker (MAKERS in corral_host.release.build) and, if its
# libraries can be proved, one entry of SELF_CONTAINED (corral_host.release.manifest).
Artifact = Annotated[
    CmakeBuild | PythonEnvironment | MadeImage | OwnImage, Field(discriminator="kind")
]


class ReleaseLimits(Frozen):
    """Limits for an unpacked release, whatever its archive or wheels say."""

    unpacked_bytes: int
    unpacked_files: int


class ReleasePlan(Frozen):
    """One engine release: what it is made of, how it is made, and its folder.

    + key: covers everything that decides the bytes; + native: built for its host's processor alone
    + commit: of its sources, or a digest of what is pinned instead of sources
    + scratch_bytes: needed below the state while it is made; + installed_bytes: in its folder;
      0 where only the host knows the size of a site's own image
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

    @property
    def image_path(self) -> str | None:
        """Its image on the host; None for a release that runs from its folder."""
        image = self.artifact.image
        return f"{self.folder}/{image}" if image else None

    def program(self, name: str) -> str:
        """Path of a program, such as llama-server; in the image for a release that is one."""
        if isinstance(self.artifact, OwnImage):
            return str(PurePosixPath(self.artifact.program).with_name(name))
        return f"{self.folder}/bin/{name}"


MadeImage.model_rebuild()
