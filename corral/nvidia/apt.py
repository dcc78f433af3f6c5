"""What Corral writes on a GPU host so that apt installs, pins and leaves alone what it shall."""

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

# Above 1000 a pin also goes back to an older version (apt_preferences(5)).
_PRIORITY = 1001
# Beginnings of package names: unattended-upgrades compares by regular expression, from the start.
_LEFT_ALONE = ("nvidia-", "libnvidia-", "libcuda", "cuda-", "firmware-nvidia-", "linux-modules-nv")


def installing_files(source: DriverSource) -> dict[str, str]:
    """Path -> text of what tells apt where to install from and in which version."""
    files = {PREFERENCES_FILE: "\n".join([_pin(source.driver), _pin(source.toolkit)])}
    if source.source:
        files[SOURCES_FILE] = _deb822(source.source)
    return files


def keeping_files() -> dict[str, str]:
    """Path -> text of what keeps a working driver working."""
    names = "".join(f'  "^{name}";\n' for name in _LEFT_ALONE)
    upgrades = f"Unattended-Upgrade::Package-Blacklist {{\n{names}}};\n"
    # Without NVIDIA's own tools nothing loads it: under NoNewPrivileges a server cannot.
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
