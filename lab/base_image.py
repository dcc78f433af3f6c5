"""The base image: the file system that every host starts from, with systemd and sshd."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from corral.planning.planner import PACKAGES as DEPLOYED_PACKAGES
from lab import locks
from lab.apt import Sources
from lab.commands import run
from lab.platforms import DEFAULT, PLATFORMS, Platform

PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "openssh-server",
    "sudo",
    "iproute2",
    "curl",
    "ca-certificates",
    "python3",
)
# With the packages that a deploy installs on every host: saves half a minute a host.
PROVISIONED = (*PACKAGES, *sorted({*DEPLOYED_PACKAGES} - {*PACKAGES}))
# Timers that would start work in a host that lives for minutes.
_MASKED = ("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer")
# A third fewer files to unpack, and to copy for each host.
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
_BUILD_TIMEOUT_SECONDS = 900
# If its caller dies, the build ends with all that it started and mounted.
_TIED_TO_CALLER = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
)


def ensure(cache: Path, packages: Sequence[str] = PACKAGES, platform: str = DEFAULT) -> Path:
    """The folder of the base image; built if it is not in the cache."""
    wanted = PLATFORMS[platform]
    sources = wanted.sources()
    image = cache / _digest(sources, packages, wanted)
    with locks.wait_for_others(cache / "lock", "building a base image"):
        for leftover in cache.glob("*.partial"):
            shutil.rmtree(leftover)
        if not image.exists():
            _build(image, sources, packages, wanted)
    return image


def is_ready(cache: Path, packages: Sequence[str] = PACKAGES, platform: str = DEFAULT) -> bool:
    """Whether `ensure` has nothing to build."""
    wanted = PLATFORMS[platform]
    return (cache / _digest(wanted.sources(), packages, wanted)).exists()


def _digest(sources: Sources, packages: Sequence[str], platform: Platform) -> str:
    argv = _argv(Path("ROOT"), [], packages, platform)
    recipe = [*argv, sources.lines, sources.stanzas]
    return hashlib.sha256("\0".join(recipe).encode()).hexdigest()[:16]


def _argv(
    root: Path, sources: list[Path], packages: Sequence[str], platform: Platform
) -> list[str]:
    masked = " ".join(_MASKED)
    return [
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        f"--include={','.join([*packages, *platform.packages])}",
        "--dpkgopt=force-unsafe-io",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT),
        '--aptopt=Acquire::Languages "none"',
        *platform.options,
        '--customize-hook=chroot "$1" systemctl --quiet enable systemd-networkd.service',
        f'--customize-hook=chroot "$1" systemctl --quiet mask {masked}',
        # Each host gets its own keys from the controller.
        '--customize-hook=rm "$1"/etc/ssh/ssh_host_*_key "$1"/etc/ssh/ssh_host_*_key.pub',
        platform.suite,
        str(root),
        *(str(path) for path in sources),
    ]


def _build(image: Path, sources: Sources, packages: Sequence[str], platform: Platform) -> None:
    partial = image.with_suffix(".partial")
    partial.mkdir()
    root = partial / "root"
    files = []
    for name, text in {"debian.list": sources.lines, "debian.sources": sources.stanzas}.items():
        if text:
            files.append(partial / name)
            files[-1].write_text(text)
    argv = _argv(root, files, packages, platform)
    keys = platform.keyring(image.parent)
    run(
        [*_TIED_TO_CALLER, argv[0], *keys, *argv[1:]],
        where="the lab's base image",
        next_step="check that this machine reaches its package mirror (`apt-get update`)",
        timeout_seconds=_BUILD_TIMEOUT_SECONDS,
    )
    root.rename(image)
    shutil.rmtree(partial)
