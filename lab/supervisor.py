"""Run one host: boot it again after a reboot, end when it is powered off.

systemd-nspawn exits with 133 if the system inside requested a reboot (nspawn 252,
EXIT_FORCE_RESTART).
"""

from __future__ import annotations

import os
import subprocess
import sys

from lab import cgroups

_REBOOT = 133
_ENVIRONMENT = {
    # Only cgroup v2, as on a current Debian or Ubuntu, even if the controller mixes v1 and v2: with
    # v1 systemd does not enforce IPAddressDeny= and DeviceAllow=.
    "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
    # A killed nspawn leaves its lock files; the host's record already prevents a second nspawn.
    "SYSTEMD_NSPAWN_LOCK": "0",
}


def main(cgroup: str, argv: list[str]) -> int:
    """Run the command in its control group until it ends for another reason than a reboot."""
    command = [*cgroups.command_in(cgroup), *argv]
    while True:
        code = subprocess.run(command, env={**os.environ, **_ENVIRONMENT}, check=False).returncode
        if code != _REBOOT:
            return code
        cgroups.kill(cgroup)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], sys.argv[2:]))
