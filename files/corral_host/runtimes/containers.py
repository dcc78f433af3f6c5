"""What this host can do with images: its container program, and what the kernel allows."""

import os
import re
import subprocess
from pathlib import Path

from corral_host.system.commands import find_program

LIMIT_SECONDS = 30
# Where a distribution or the project itself puts the starter with the setuid bit.
STARTERS = (
    "/usr/lib/x86_64-linux-gnu/{}/bin/starter-suid", "/usr/libexec/{}/bin/starter-suid",
    "/usr/local/libexec/{}/bin/starter-suid",
)  # fmt: skip
NAMES = ("apptainer", "singularity")
KERNEL = Path("/proc/sys")
PROFILES = Path("/sys/kernel/security/apparmor/profiles")


def containers(plan):
    """For a plan with images: which programs there are, and what stops them; None without."""
    programs = {name for one in plan["instances"] if (name := program_of(one))}
    if not programs:
        return None
    here = {name: described(name) for name in sorted({*programs, *NAMES})}
    return {
        "programs": {name: one for name, one in here.items() if one},
        "user_namespaces": user_namespaces(),
        "fuse": os.path.exists("/dev/fuse"),
        "squashfuse": any(find_program(name) for name in ("squashfuse_ll", "squashfuse")),
    }


def program_of(instance):
    return (instance.get("runtime") or {}).get("program", "")


def described(name):
    """Path, kind, version and starter of a program; None if it is not here."""
    path = name if name.startswith("/") else find_program(name)
    if not path or not os.access(path, os.X_OK):
        return None
    said = version_of(path)
    kind = "apptainer" if "apptainer" in said else "singularity"
    found = re.search(r"[0-9]+\.[0-9]+(\.[0-9]+)?", said)
    return {
        "path": str(path),
        "kind": kind,
        "version": found.group(0) if found else "",
        "setuid": any(is_setuid(place.format(kind)) for place in STARTERS),
    }


def version_of(path):
    try:
        done = subprocess.run(
            [str(path), "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", timeout=LIMIT_SECONDS,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def is_setuid(path):
    return os.path.exists(path) and bool(os.stat(path).st_mode & 0o4000)


def user_namespaces():
    """Why a program without privileges cannot have a user namespace; "" if it can."""
    for name, forbidden in (
        ("user/max_user_namespaces", "0"),
        ("kernel/unprivileged_userns_clone", "0"),
    ):
        path = KERNEL / name
        if path.exists() and path.read_text().strip() == forbidden:
            return name.replace("/", ".")
    path = KERNEL / "kernel/apparmor_restrict_unprivileged_userns"
    if path.exists() and path.read_text().strip() == "1" and not has_profile():
        return "kernel.apparmor_restrict_unprivileged_userns"
    return ""


def has_profile():
    """Whether a profile of AppArmor is loaded for a container program."""
    try:
        return any(name in PROFILES.read_text() for name in NAMES)
    except OSError:
        return False
