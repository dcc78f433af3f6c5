"""The unit of a swarm's aria2: a user of its own, who sees nothing but what it serves."""

import os
import subprocess
from pathlib import Path

from corral_host.system.commands import HostError, quiet, show

UNIT = "corral-swarm.service"
# Where the unit sees the folder that it writes to: in an empty folder of its own.
TAKEN = "/var/lib/corral-taken"
# What stays of the root; of the others, and of /var, a unit sees what is bound there.
KEPT = (
    "bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "run", "sbin", "sys", "tmp",
    "usr",
)  # fmt: skip
CREDENTIAL = "aria2"
# Reads and writes of servers go first, as for the job itself.
GENTLE = (
    "Nice=10", "CPUWeight=20", "IOWeight=20", "IOSchedulingClass=best-effort",
    "IOSchedulingPriority=7", "OOMScoreAdjust=800",
)  # fmt: skip
SANDBOX = (
    "Type=exec", "DynamicUser=yes", "NoNewPrivileges=yes", "CapabilityBoundingSet=", "UMask=0077",
    "ProtectHome=tmpfs", "InaccessiblePaths=-/etc/corral -/run/corral -/run/corral-users",
    "PrivateDevices=yes", "PrivateIPC=yes", "ProtectProc=invisible", "ProtectKernelTunables=yes",
    "ProtectKernelModules=yes", "ProtectKernelLogs=yes", "ProtectControlGroups=yes",
    "ProtectClock=yes", "RestrictNamespaces=yes", "RestrictRealtime=yes", "RestrictSUIDSGID=yes",
    "LockPersonality=yes", "MemoryDenyWriteExecute=yes", "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service", "SystemCallFilter=~@privileged @resources",
    "SystemCallErrorNumber=EPERM", "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK",
    "LimitCORE=0", "LimitNOFILE=65536", "TimeoutStopSec=10",
    # Its own control, and members.
    "IPAddressDeny=any", "IPAddressAllow=localhost",
)  # fmt: skip

OTHERWISE = ("home", "root", "var")


class Unit:
    """aria2 in its unit. ``lent``: what it writes to; ``shown``: a folder that it may read."""

    def __init__(self, settings, lent, shown):
        self.settings, self.lent = settings, lent
        # A folder may be a link, which leads nowhere inside.
        self.shown = os.path.realpath(shown) if shown else None
        self._process = self._secret = None

    def start(self, arguments, secret):
        """Start aria2 with arguments, and a line of its configuration that nobody may read."""
        stop()
        self.lent.open()
        # In memory, and systemd's to read until the unit has started.
        self._secret = os.fdopen(os.memfd_create(CREDENTIAL), "w")
        self._secret.write(secret)
        self._secret.flush()
        properties = [
            *GENTLE, *SANDBOX, *(f"TemporaryFileSystem={one}:ro" for one in hidden(self.shown)),
            f"LoadCredential={CREDENTIAL}:/proc/{os.getpid()}/fd/{self._secret.fileno()}",
            f"BindPaths={self.lent.folder}:{TAKEN}",
            *([f"BindReadOnlyPaths={self.shown}"] if self.shown else ()),
            *(f"IPAddressAllow={address}" for address in sorted(self.settings.addresses)),
        ]  # fmt: skip
        options = [part for one in properties for part in ("--property", one)]
        self._process = subprocess.Popen(
            ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", f"--unit={UNIT}", *options,
             "aria2c", f"--conf-path=${{CREDENTIALS_DIRECTORY}}/{CREDENTIAL}", *arguments],
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def started(self):
        """aria2 answers: its user is known now."""
        self._secret.close()
        user = show(UNIT, "UID")["UID"]
        if not user.isdigit() or user == "0":
            raise HostError(f"{UNIT} has no user of its own ({user})")
        self.lent.give_to(int(user))

    def inside(self, path):
        """A path as the unit sees it."""
        if path.parent == self.lent.folder:
            return f"{TAKEN}/{path.name}"
        return os.path.realpath(path)

    def has_ended(self):
        return self._process.poll() is not None

    def stop(self):
        stop()
        if self._process:
            self._process.wait()
            self._secret.close()
        self.lent.restore_all()


def hidden(shown):
    """Folders that the unit sees empty, without the one that it may read.

    Not those that other settings of the unit are for: /home and /root, /var/tmp.
    """
    found = [Path("/", name) for name in os.listdir("/") if name not in (*KEPT, *OTHERWISE)]
    found += [Path("/var", name) for name in os.listdir("/var") if name != "tmp"]
    folders = sorted(str(one) for one in found if one.is_dir() and not one.is_symlink())
    return [one for one in folders if one != shown]


def stop():
    quiet("stop", "--quiet", UNIT)
