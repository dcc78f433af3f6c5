"""Check whether this machine can host a lab; if not, say in one line what to type."""

from __future__ import annotations

import os
import shutil
import sys

from corral.errors import CorralError

# program -> Debian package
_PROGRAMS = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "ip": "iproute2",
    "nft": "nftables",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "git": "git",
    "gpg": "gnupg",
    "setpriv": "util-linux",
    "unshare": "util-linux",
}
_STILL_WORKS = "`corral plan` and the unit tests work without a lab"


def missing() -> list[str]:
    """Names of what this machine lacks to host a lab; empty if it can."""
    if sys.platform != "linux":
        return ["Linux"]
    lacks = [] if os.geteuid() == 0 else ["root"]
    return lacks + [program for program in _PROGRAMS if shutil.which(program) is None]


def require() -> None:
    """Raise CorralError if this machine cannot host a lab."""
    lacks = missing()
    if not lacks:
        return
    raise CorralError(
        "this machine",
        f"cannot host a lab: no {', '.join(lacks)}",
        f"{', then '.join(_todo(lacks))}; {_STILL_WORKS}",
    )


def _todo(lacks: list[str]) -> list[str]:
    """What to type, in order, for what is missing."""
    if "Linux" in lacks:
        return ["use a Linux machine"]
    steps = []
    if packages := sorted({_PROGRAMS[name] for name in lacks if name in _PROGRAMS}):
        steps.append(f"`make setup` or `apt-get install {' '.join(packages)}`")
    if "root" in lacks:
        steps.append("the same command as root")
    return steps
