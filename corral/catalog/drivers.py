"""Sources and pinned versions of a distribution's NVIDIA driver and CUDA toolkit."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from corral.schema import Frozen

# Files that Corral writes on a GPU host, beside packages.
SOURCES_FILE = "/etc/apt/sources.list.d/corral-nvidia.sources"
# apt reads a keyring by its suffix: .asc is armored (the host helper writes that), .gpg is binary,
# and apt ignores any other.
KEYRING_FILE = "/etc/apt/keyrings/corral-nvidia.asc"
PREFERENCES_FILE = "/etc/apt/preferences.d/corral-nvidia"
# After 50unattended-upgrades, whose list it extends.
UPGRADES_FILE = "/etc/apt/apt.conf.d/51corral-nvidia"
MODULES_FILE = "/etc/modules-load.d/corral-nvidia.conf"
FILES = (SOURCES_FILE, PREFERENCES_FILE, UPGRADES_FILE, MODULES_FILE)


# A value of a deb822 file without whitespace: it cannot add a line of its own.
Deb822Value = Annotated[str, Field(pattern=r"^\S+$")]


class AptSource(Frozen):
    """A package repository that is added to those of the host."""

    uri: str | None = Field(
        default=None,
        pattern=r"^https?://\S+$",
        description="where apt fetches from; if unset, the host's own repository of the suite, "
        "such as a mirror, gets the components",
    )
    suite: Deb822Value = Field(default="/", description='"/" for a repository without suites')
    components: tuple[Deb822Value, ...] = Field(
        default=(), description="none for a repository without suites"
    )
    keyring: str | None = Field(
        default=None,
        pattern=r"^/\S+\.(asc|gpg)$",
        description="keyring file of the distribution, on the host",
    )
    key_url: str | None = Field(
        default=None,
        pattern=r"^https?://\S+$",
        description="URL of the repository's signing key",
    )
    key_fingerprint: str | None = Field(
        default=None,
        pattern="^[0-9A-F]{40}$",
        description="fingerprint of that key, 40 hex digits, as its publisher states it",
    )

    @model_validator(mode="after")
    def _signed(self) -> AptSource:
        if self.uri is None:
            return self._of_host()
        fetched = bool(self.key_url) and bool(self.key_fingerprint)
        if fetched == bool(self.keyring):
            raise ValueError(
                "name either keyring, or key_url with key_fingerprint (its publisher states it)"
            )
        return self

    def _of_host(self) -> AptSource:
        """The host's own is trusted as the host does."""
        if self.keyring or self.key_url or self.key_fingerprint:
            raise ValueError("keyring, key_url and key_fingerprint need uri")
        if not self.components:
            raise ValueError("without uri, name the components that the host's own gets")
        return self


class PinnedPackages(Frozen):
    """Packages at a pinned version: exact, or a branch such as 580.*"""

    version: str = Field(
        pattern=r"^[0-9][0-9A-Za-z_.:+~*-]*$",
        description="as apt pins it: a full version, or a prefix with *",
    )
    packages: tuple[str, ...] = Field(min_length=1, description="packages to install")
    pins: tuple[str, ...] = Field(
        default=(), description="more packages to pin: Package: of apt_preferences(5)"
    )


class DriverSource(Frozen):
    """One distribution. File: catalog/drivers/<ID>-<VERSION_ID>.toml, after /etc/os-release."""

    source: AptSource | None = Field(
        default=None, description="package repository; the host's own if unset"
    )
    driver: PinnedPackages = Field(description="packages of the driver")
    proprietary: PinnedPackages | None = Field(
        default=None,
        description="packages of the driver for GPUs before Turing, which the open kernel modules "
        "do not drive; driver serves them, too, if unset",
    )
    toolkit: PinnedPackages = Field(description="packages of the CUDA toolkit")
    toolkit_release: str = Field(
        pattern=r"^[0-9]+\.[0-9]+$", description="release that its nvcc reports"
    )

    def before_turing(self) -> DriverSource:
        """The same for GPUs that need the proprietary kernel modules."""
        return self.model_copy(update={"driver": self.proprietary or self.driver})

    @property
    def packages(self) -> tuple[str, ...]:
        """Driver and toolkit packages that are installed by name."""
        return (*self.driver.packages, *self.toolkit.packages)


class EngineNeeds(Frozen):
    """The minimum driver version of a planned release."""

    release: str
    minimum_driver: str = "0"


class GpuSetup(Frozen):
    """The planned drivers of a host, for every distribution: only the host knows which it is."""

    sources: dict[str, DriverSource]
    toolkit: str | None
    engines: tuple[EngineNeeds, ...] = ()
    files: tuple[str, ...] = FILES
