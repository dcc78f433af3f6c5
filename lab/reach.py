"""Can a lab host reach the package mirror? Says so when not, and where to look."""

from __future__ import annotations

from collections.abc import Callable

from corral.errors import CorralError
from lab import apt, ssh
from lab.layout import Layout

_TIMEOUT_SECONDS = 10


def check(layout: Layout, n: int, tell: Callable[[str], None]) -> None:
    """Tell the user when host n cannot reach the mirror; the lab works without, packages do not."""
    mirror = apt.debian_sources().mirror()
    probe = ["curl", "--silent", "--show-error", "--head", "--output", "/dev/null"]
    try:
        ssh.run_on(layout, n, *probe, "--max-time", str(_TIMEOUT_SECONDS), mirror)
    except CorralError as error:
        tell(
            f"{layout.host_name(n)} cannot reach {mirror}: {error.what.splitlines()[-1].strip()}\n"
            "  Packages cannot be installed on lab hosts. If this machine itself reaches it, its\n"
            "  own rules drop forwarded packets (docker and ufw do). Allow both directions:\n"
            f"  `iptables -I FORWARD -i {layout.bridge} -j ACCEPT`\n"
            f"  `iptables -I FORWARD -o {layout.bridge} -j ACCEPT`"
        )
