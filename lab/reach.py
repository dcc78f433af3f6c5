"""Check that a lab host reaches the package mirror; if not, say what to change."""

from __future__ import annotations

from collections.abc import Callable

from corral.errors import CorralError
from lab import apt, ssh
from lab.layout import Layout

_TIMEOUT_SECONDS = 30


def check(layout: Layout, n: int, report: Callable[[str], None]) -> None:
    """Report it if host n cannot reach the mirror: the lab works, but no package is installed."""
    mirror = apt.debian_sources().mirror()
    probe = ["curl", "--silent", "--show-error", "--head", "--output", "/dev/null"]
    try:
        ssh.run_on(layout, n, *probe, "--max-time", str(_TIMEOUT_SECONDS), mirror)
    except CorralError as error:
        report(
            f"{layout.host_name(n)} cannot reach {mirror}: {error.what.splitlines()[-1].strip()}\n"
            "  Packages cannot be installed on lab hosts. If this machine itself reaches the\n"
            "  mirror, its rules drop forwarded packets (docker and ufw do). Allow both ways:\n"
            f"  `iptables -I FORWARD -i {layout.bridge} -j ACCEPT`\n"
            f"  `iptables -I FORWARD -o {layout.bridge} -j ACCEPT`"
        )
