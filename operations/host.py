"""A host before its engines: findings, base packages, the helper."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from pyinfra import host
from pyinfra.api import operation
from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.operations import apt

from corral.findings import Finding
from corral.offline.deploy import AptFiles
from corral.plan.host import HostPlan
from operations import Commands, job, put_bytes


@operation()
def preflight(findings: Sequence[Finding]) -> Commands:
    """Stop this host, before any change, when there are findings.

    + findings: what corral.preflight found, all of it.
    """
    if not findings:
        host.noop("no blocking findings")
        return
    lines = [line for f in findings for line in (f.what, f"  Next: {f.next_step}")]
    yield from job.fail("\n".join(lines))


@operation()
def packages(missing: Sequence[str], *, apt_files: AptFiles | None = None) -> Commands:
    """Install distribution packages.

    + missing: those of the plan that the host lacks; + apt_files: of a bundle as the only source
    """
    if not missing:
        host.noop("all packages are installed")
        return
    if apt_files:
        yield from _from_bundle(missing, apt_files)
        return
    yield from apt.packages._inner(
        packages=list(missing),
        update=True,
        no_recommends=True,
        # A fresh cloud host upgrades itself in its first minutes and holds the lock.
        extra_install_args="-o DPkg::Lock::Timeout=300",
    )


def _from_bundle(missing: Sequence[str], apt_files: AptFiles) -> Commands:
    """The host's own sources are neither asked nor changed."""
    for path, text in apt_files.files.items():
        yield put_bytes(path, text.encode())
    environment = (f"APT_CONFIG={apt_files.config}", "DEBIAN_FRONTEND=noninteractive")
    lock = ("-o", "DPkg::Lock::Timeout=300")
    yield StringCommand("env", *environment, "apt-get", *lock, "--error-on=any", "update")
    yield StringCommand(
        "env", *environment, "apt-get", "-y", *lock, "-o", "Dpkg::Options::=--force-confdef",
        "-o", "Dpkg::Options::=--force-confold", "--no-install-recommends", "install",
        *(QuoteString(name) for name in missing),
    )  # fmt: skip


@operation()
def helper(path: str, *, archive: bytes, installed_sha256: str | None) -> Commands:
    """Install the host helper, by one rename.

    + path: on the host; + archive: its bytes; + installed_sha256: what is there now.
    """
    if installed_sha256 == hashlib.sha256(archive).hexdigest():
        host.noop("the helper is current")
        return
    yield put_bytes(path, archive)


@operation()
def kernel(recorded: bool, *, plan: HostPlan) -> Commands:
    """Note the kernel's command line, with which `corral drift` compares.

    + recorded: whether it is the one that the last deploy saw.
    """
    if recorded:
        host.noop("the kernel's command line is the recorded one")
        return
    helper = QuoteString(plan.paths.helper)
    yield StringCommand("python3", "-I", helper, "record-kernel", _stdin=plan.to_helper())


@operation()
def modes(closed: Sequence[str], *, plan: HostPlan) -> Commands:
    """Let servers, which are users of their own, read what is theirs.

    + closed: what only root can read of it, as a umask of root's hid it.
    """
    if not closed:
        host.noop("servers can read what is theirs")
        return
    helper = QuoteString(plan.paths.helper)
    yield StringCommand("python3", "-I", helper, "heal", _stdin=plan.to_helper())
