"""Programs that no distribution has, in pinned versions."""

from __future__ import annotations

from pydantic import Field, model_validator

from corral.catalog.drivers import AptSource, PinnedPackages
from corral.schema import Frozen


class ProgramSource(Frozen):
    """A program of a package repository. File: catalog/programs/<name>.toml."""

    source: AptSource | None = Field(
        default=None, description="package repository; if unset, the host's own have to offer it"
    )
    packages: PinnedPackages = Field(description="its packages")

    @model_validator(mode="after")
    def _named(self) -> ProgramSource:
        if self.source and self.source.uri is None:
            raise ValueError("source needs uri; leave source out for the host's own repositories")
        return self
