"""Distributions of lab hosts: where their packages come from, and what they have beforehand."""

from __future__ import annotations

import hashlib
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from corral.errors import CorralError
from corral.files import write_atomic
from lab import apt
from lab.apt import Sources
from lab.commands import run
from lab.layout import ROOM

DEFAULT = "debian-12"

_UBUNTU = "http://archive.ubuntu.com/ubuntu"
# The keys of Ubuntu's archive, which Debian 12 does not package.
_KEYRING_URL = f"{_UBUNTU}/pool/main/u/ubuntu-keyring/ubuntu-keyring_2023.11.28.1_all.deb"
_KEYRING_SHA256 = "36de43b15853ccae0028e9a767613770c704833f82586f28eb262f0311adb8a8"
_KEYRING_FILE = "usr/share/keyrings/ubuntu-archive-keyring.gpg"
_TIMEOUT_SECONDS = 60
# Debian has apptainer in sid alone; nothing else may come from there.
_PINNED = (
    r"Package: *\nPin: release n=sid\nPin-Priority: -1\n\n"
    r"Package: apptainer\nPin: release n=sid\nPin-Priority: 500\n"
)
# nspawn passes no device of the controller on; squashfuse needs this one.
_FUSE = "c /dev/fuse 0666 root root - 10:229"


@dataclass(frozen=True)
class Platform:
    """A distribution, as the catalog names it.

    + suite: the name of its release in package sources; + packages: beside those of every host
    + options: of mmdebstrap
    """

    name: str
    suite: str
    packages: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def sources(self) -> Sources:
        """Its package sources. Raises CorralError where this machine has none to derive them from.

        Debian's are this machine's own, with the name of the other release.
        """
        if self.name.startswith("ubuntu"):
            entry = f"deb {_UBUNTU} {{}} main universe\n"
            suites = (self.suite, f"{self.suite}-updates", f"{self.suite}-security")
            return Sources("".join(map(entry.format, suites)), "")
        own = apt.debian_sources()
        if self.name == DEFAULT:
            return own
        found = own.renamed(self.suite)
        return found.plus(own.only_release().renamed("sid")) if self.packages else found

    def keyring(self, cache: Path) -> tuple[str, ...]:
        """Options of mmdebstrap for keys that this machine does not have; fetched once."""
        if not self.name.startswith("ubuntu"):
            return ()
        return (f"--keyring={_ubuntu_keyring(cache)}",)


PLATFORMS = {
    platform.name: platform
    for platform in (
        Platform(DEFAULT, apt.RELEASE),
        Platform(
            "debian-13", "trixie",
            packages=("apptainer", "squashfuse", "libnss-systemd", "tzdata"),
            options=(
                # A mirror that is behind serves an expired index of sid.
                '--aptopt=Acquire::Check-Valid-Until "false"',
                f'--setup-hook=printf "{_PINNED}" > "$1"/etc/apt/preferences.d/sid',
                '--setup-hook=mkdir -p "$1"/etc/tmpfiles.d',
                f'--setup-hook=echo "{_FUSE}" > "$1"/etc/tmpfiles.d/fuse.conf',
            ),
        ),
        # Their smallest variant has no apt.
        Platform("ubuntu-22.04", "jammy", packages=("apt",)),
        Platform("ubuntu-24.04", "noble", packages=("apt",)),
    )
}  # fmt: skip


def _ubuntu_keyring(cache: Path) -> Path:
    """Raises CorralError where it cannot be fetched, or is another file."""
    folder = cache / "ubuntu-keyring"
    if not (folder / _KEYRING_FILE).exists():
        package = cache / _KEYRING_URL.rpartition("/")[2]
        write_atomic(package, _fetched(), next_step=ROOM)
        run(["dpkg-deb", "--extract", package, folder], where="Ubuntu's keys")
    return folder / _KEYRING_FILE


def _fetched() -> bytes:
    step = "check that this machine reaches it, run `corral lab up` again"
    try:
        with urllib.request.urlopen(_KEYRING_URL, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310 - ours
            content: bytes = answer.read()
    except OSError as error:
        raise CorralError(_KEYRING_URL, str(error), step) from error
    if hashlib.sha256(content).hexdigest() != _KEYRING_SHA256:
        raise CorralError(_KEYRING_URL, "is another file than the pinned one", step)
    return content
