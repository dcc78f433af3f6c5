"""Files on a GPU host that make apt install and pin drivers, and not upgrade them unattended."""

from __future__ import annotations

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


def installing_files(source: DriverSource) -> dict[str, str]:
    """Path -> text of the files that set apt's source and versions."""
    files = {PREFERENCES_FILE: "\n".join([_pin(source.driver), _pin(source.toolkit)])}
    if source.source:
        files[SOURCES_FILE] = _deb822(source.source)
    return files


def keeping_files() -> dict[str, str]:
    """Path -> text of the files that keep a working driver working."""
    names = "".join(f'  "^{name}";\n' for name in _NOT_UPGRADED)
    upgrades = f"Unattended-Upgrade::Package-Blacklist {{\n{names}}};\n"
    # Only NVIDIA's own tools load nvidia-uvm on demand; a server under NoNewPrivileges cannot.
    return {UPGRADES_FILE: upgrades, MODULES_FILE: "nvidia-uvm\n"}


def _deb822(source: AptSource) -> str:
    fields = {
        "Types": "deb",
        "URIs": source.uri,
        "Suites": source.suite,
        "Components": " ".join(source.components),
        "Signed-By": source.keyring or KEYRING_FILE,
    }
    return "".join(f"{name}: {value}\n" for name, value in fields.items() if value)


def _pin(pinned: PinnedPackages) -> str:
    names = " ".join([*pinned.packages, *pinned.pins])
    return f"Package: {names}\nPin: version {pinned.version}\nPin-Priority: {_PRIORITY}\n"
