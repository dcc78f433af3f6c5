"""Files on a GPU host that make apt install and pin drivers, and not upgrade them unattended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from corral.catalog.drivers import (
    KEYRING_FILE,
    MODULES_FILE,
    PREFERENCES_FILE,
    SOURCES_FILE,
    UPGRADES_FILE,
    AptSource,
    DriverSource,
    PinnedPackages,
)
from corral.host.state import HostSource

# Above 1000 a pin also downgrades (apt_preferences(5)).
_PRIORITY = 1001
# Prefixes of package names: unattended-upgrades matches regular expressions from the start.
_NOT_UPGRADED = (
    "nvidia-",
    "libnvidia-",
    "libcuda",
    "cuda-",
    "firmware-nvidia-",
    "linux-modules-nv",
)


def installing_files(source: DriverSource, configured: Sequence[HostSource] = ()) -> dict[str, str]:
    """Path -> text of the files that set apt's source and versions; ``configured``: on the host."""
    files = {PREFERENCES_FILE: "\n".join([pin_text(source.driver), pin_text(source.toolkit)])}
    text = _added(source.source, configured) if source.source else ""
    if text:
        files[SOURCES_FILE] = text
    return files


def own_source(source: AptSource, configured: Sequence[HostSource]) -> HostSource | None:
    """The host's own repository of a suite, which gets components; None without one."""
    own = [one for one in configured if one.suite == source.suite and "main" in one.components]
    return next(iter(own), None)


def _added(source: AptSource, configured: Sequence[HostSource]) -> str:
    """The text of the sources file; empty where the host has all that it would add."""
    if source.uri is not None:
        return sources_text(source, KEYRING_FILE)
    own = own_source(source, configured)
    if own is None:
        return ""
    same = [one for one in configured if (one.uri, one.suite) == (own.uri, own.suite)]
    enabled = {component for one in same for component in one.components}
    missing = [component for component in source.components if component not in enabled]
    fields = {
        "Types": "deb",
        "URIs": own.uri,
        "Suites": own.suite,
        "Components": " ".join(missing),
        # apt refuses one repository with two values.
        "Signed-By": own.signed_by,
        "Trusted": "yes" if own.trusted else "",
    }
    return _stanza(fields) if missing else ""


def keeping_files() -> dict[str, str]:
    """Path -> text of the files that keep a working driver working."""
    names = "".join(f'  "^{name}";\n' for name in _NOT_UPGRADED)
    upgrades = f"Unattended-Upgrade::Package-Blacklist {{\n{names}}};\n"
    # Only NVIDIA's own tools load nvidia-uvm on demand; a server under NoNewPrivileges cannot.
    return {UPGRADES_FILE: upgrades, MODULES_FILE: "nvidia-uvm\n"}


def sources_text(source: AptSource, keyring: str) -> str:
    """The file that adds a repository; ``keyring``: where its fetched key is."""
    fields = {
        "Types": "deb",
        "URIs": source.uri,
        "Suites": source.suite,
        "Components": " ".join(source.components),
        "Signed-By": source.keyring or keyring,
    }
    return _stanza(fields)


def _stanza(fields: Mapping[str, str | None]) -> str:
    return "".join(f"{name}: {value}\n" for name, value in fields.items() if value)


def pin_text(pinned: PinnedPackages, priority: int = _PRIORITY) -> str:
    """Preferences that keep packages in their versions."""
    names = " ".join([*pinned.packages, *pinned.pins])
    return f"Package: {names}\nPin: version {pinned.version}\nPin-Priority: {priority}\n"
