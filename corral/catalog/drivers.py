"""Where a distribution's NVIDIA driver and CUDA toolkit come from, and in which versions."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from corral.schema import Frozen

# What Corral writes on a GPU host, beside packages.
SOURCES_FILE = "/etc/apt/sources.list.d/corral-nvidia.sources"
# apt reads a keyring by the end of its name: .asc is armored (what the host helper writes there),
# .gpg is binary, and it passes over any other.
KEYRING_FILE = "/etc/apt/keyrings/corral-nvidia.asc"
PREFERENCES_FILE = "/etc/apt/preferences.d/corral-nvidia"
# After 50unattended-upgrades, to whose list it adds.
UPGRADES_FILE = "/etc/apt/apt.conf.d/51corral-nvidia"
MODULES_FILE = "/etc/modules-load.d/corral-nvidia.conf"
FILES = (SOURCES_FILE, PREFERENCES_FILE, UPGRADES_FILE, MODULES_FILE)


# One word of a deb822 file: it brings no line of its own there.
Word = Annotated[str, Field(pattern=r"^\S+$")]


class AptSource(Frozen):
    """A package repository beside those that the host has."""

    uri: str = Field(pattern=r"^https?://\S+$", description="where apt fetches from")
    suite: Word = Field(default="/", description='"/" for a repository without suites')
    components: tuple[Word, ...] = Field(
        default=(), description="none for a repository without suites"
    )
    keyring: str | None = Field(
        default=None,
        pattern=r"^/\S+\.(asc|gpg)$",
        description="on the host, from the distribution",
    )
    key_url: str | None = Field(
        default=None,
        pattern=r"^https?://\S+$",
        description="where the repository's signing key is fetched",
    )
    key_fingerprint: str | None = Field(
        default=None,
        pattern="^[0-9A-F]{40}$",
        description="of that key, 40 hex digits, as its publisher tells it",
    )

    @model_validator(mode="after")
    def _signed(self) -> AptSource:
        fetched = bool(self.key_url) and bool(self.key_fingerprint)
        if fetched == bool(self.keyring):
            raise ValueError(
                "name either keyring, or key_url with key_fingerprint (its publisher tells it)"
            )
        return self


class PinnedPackages(Frozen):
    """Packages in a pinned version: exact, or a branch such as 580.*"""

    version: str = Field(
        pattern=r"^[0-9][0-9A-Za-z_.:+~*-]*$",
        description="as apt pins it: whole, or with a * at its end",
    )
    packages: tuple[str, ...] = Field(min_length=1, description="names that are installed")
    pins: tuple[str, ...] = Field(default=(), description="more of apt_preferences(5)'s Package:")


class DriverSource(Frozen):
    """One distribution. File: catalog/drivers/<id>-<version>.toml, as /etc/os-release says."""

    source: AptSource | None = Field(default=None, description="unset: what the host has")
    driver: PinnedPackages = Field(description="packages of the driver")
    toolkit: PinnedPackages = Field(description="packages of the CUDA toolkit")
    toolkit_release: str = Field(pattern=r"^[0-9]+\.[0-9]+$", description="what its nvcc says")

    @property
    def packages(self) -> tuple[str, ...]:
        """Driver and toolkit packages that are installed by name."""
        return (*self.driver.packages, *self.toolkit.packages)


class EngineNeeds(Frozen):
    """The least that a planned release asks of the driver."""

    release: str
    minimum_driver: str = "0"


class GpuSetup(Frozen):
    """What planning decides about drivers: all but the distribution, which only the host tells."""

    sources: dict[str, DriverSource]
    toolkit: str | None
    engines: tuple[EngineNeeds, ...] = ()
    files: tuple[str, ...] = FILES
