"""Files that a host gets before its first boot: identity, ssh, network, mirrors."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from lab import apt, gpus
from lab.commands import run
from lab.descriptions import Gpu, HostSpec
from lab.layout import Layout

_STUB_RESOLVER = "127."
_RESOLV_CONF = Path("/etc/resolv.conf")
_RESOLVED_UPSTREAM = Path("/run/systemd/resolve/resolv.conf")
# The default, which withstands quantum computers, costs ssh(1) 65 ms of processor time for each
# connection; a lab has thousands of them on a bridge inside of one machine.
_KEX = "curve25519-sha256,curve25519-sha256@libssh.org"
# They generate units for encrypted disks, consoles and start-up scripts, which no host here has.
_USELESS_GENERATORS = (
    *("cryptsetup", "debug", "getty", "gpt-auto", "hibernate-resume", "integritysetup"),
    *("rc-local", "run", "system-update", "sysv", "veritysetup"),
)
_CERTIFICATES = (Path("/etc/ssl/certs"), Path("/usr/local/share/ca-certificates"))


def write(root: Path, layout: Layout, spec: HostSpec, host_key: Path) -> None:
    """Write all files by which a host differs from the base image.

    + root: laid over the base image; a folder here replaces the mode of the base image's folder
    """
    _identity(root, layout, spec.n)
    _generators(root)
    _ssh(root, layout, host_key)
    _network(root, layout, spec.n)
    _mirrors(root)
    if spec.gpus:
        _gpus(root, spec.gpus)


def _identity(root: Path, layout: Layout, n: int) -> None:
    name = layout.host_name(n)
    _put(root / "etc/hostname", f"{name}\n")
    _put(root / "etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {name}\n::1 localhost\n")
    # A fixed id: without one, systemd treats the boot as the first and enables units by preset.
    _put(root / "etc/machine-id", f"{uuid.uuid4().hex}\n")


def _generators(root: Path) -> None:
    """Mask generators (systemd.generator(7)): systemd runs all of them at each reload."""
    folder = root / "etc/systemd/system-generators"
    folder.mkdir(parents=True)
    for name in _USELESS_GENERATORS:
        (folder / f"systemd-{name}-generator").symlink_to(os.devnull)


def _ssh(root: Path, layout: Layout, host_key: Path) -> None:
    installed = root / "etc/ssh/ssh_host_ed25519_key"
    _put(installed, host_key.read_text(), mode=0o600)
    _put(installed.with_suffix(".pub"), host_key.with_suffix(".pub").read_text())
    settings = f"HostKey /{installed.relative_to(root)}\nKexAlgorithms {_KEX}\n"
    _put(root / "etc/ssh/sshd_config.d/corral-lab.conf", settings)
    folder = root / "root/.ssh"
    for private in (folder.parent, folder):
        private.mkdir(mode=0o700)
    _put(folder / "authorized_keys", layout.ssh_key.with_suffix(".pub").read_text(), mode=0o600)


def _network(root: Path, layout: Layout, n: int) -> None:
    text = f"""[Match]
Name=host0

[Network]
Address={layout.address(n)}/{layout.subnet.prefixlen}
Gateway={layout.controller_address}
LinkLocalAddressing=no
IPv6AcceptRA=no
"""
    _put(root / "etc/systemd/network/10-host0.network", text)


def _mirrors(root: Path) -> None:
    resolv_conf = _RESOLV_CONF.read_text()
    if f"nameserver {_STUB_RESOLVER}" in resolv_conf:
        resolv_conf = _RESOLVED_UPSTREAM.read_text()
    _put(root / "etc/resolv.conf", resolv_conf)
    _put(root / "etc/apt/apt.conf.d/90corral-lab", apt.access_settings())
    for folder in _CERTIFICATES:
        if folder.is_dir():
            target = root / folder.relative_to("/")
            target.mkdir(parents=True, exist_ok=True)
            run(["cp", "-a", "--no-target-directory", folder, target], where="CA certificates")


def _gpus(root: Path, described: tuple[Gpu, ...]) -> None:
    driver = gpus.module(described[0].driver_version)
    for file in (gpus.nvidia_smi(), *gpus.cards(described), *driver):
        _put(root / file.path, file.text, mode=file.mode)


def _put(path: Path, text: str, *, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
