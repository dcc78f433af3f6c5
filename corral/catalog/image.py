"""A release that is an image of the site's own: what the catalog says of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from corral.schema import Frozen

# On hosts, or where they fetch it. No user and password: they would be in plans and logs.
SOURCE = r"^(https?://[^\s?#@]+|/[^\s]+)$"
_GIB = 1024**3


class Image(Frozen):
    """A .sif or .squashfs file with the server in it, run by Apptainer or Singularity.

    `corral lock` records its sha256.
    """

    source: str = Field(
        pattern=SOURCE, description="path of the file on hosts, or URL that they fetch it from"
    )
    sha256: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{64}$",
        description="its digest; `corral lock` reads the file where it is unset",
    )
    program: str = Field(
        pattern=r"^(/[A-Za-z0-9._+-]+)+$",
        description="path of the server in the image; the engine's other programs are beside it",
    )
    backend: Literal["cpu", "cuda"] | None = Field(
        default=None, description="what it computes on; either if unset"
    )
    most_bytes: int = Field(
        default=32 * _GIB, gt=0, lt=2**40, description="limit for the size of the file"
    )

    @field_validator("source")
    @classmethod
    def _plain(cls, source: str) -> str:
        if ".." in source.split("/") or not source.isprintable():
            raise ValueError(f"{source!r} is not a plain path or URL")
        if not source.endswith((".sif", ".squashfs", ".sqfs", ".img")):
            raise ValueError(f"{source!r} is neither a .sif nor a .squashfs file")
        return source

    @property
    def pinned(self) -> str:
        """What the lock must have been made for, as one line for people."""
        return f"{self.source} with sha256 {self.sha256}" if self.sha256 else self.source

    @property
    def file_name(self) -> str:
        """Its name in the folder of a release."""
        return "image.sif" if self.source.endswith(".sif") else "image.squashfs"
