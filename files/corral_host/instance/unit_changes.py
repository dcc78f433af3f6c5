"""What changes a server from outside its unit file: drop-ins, other unit files, variables.

An unchanged unit file does not exclude a drop-in beside it, which may give the server another user,
or tools that run programs for requests.
"""

import contextlib
import os
import re
import time
from pathlib import Path

from corral_host import engines, runtimes
from corral_host.system.commands import HostError, output, show

# Where systemd looks for units and drop-ins (systemd.unit(5)), except for what distributions ship.
SEARCHED = (
    "/etc/systemd/system.control", "/run/systemd/system.control", "/run/systemd/transient",
    "/run/systemd/generator.early", "/etc/systemd/system", "/etc/systemd/system.attached",
    "/run/systemd/system", "/run/systemd/system.attached", "/run/systemd/generator",
    "/usr/local/lib/systemd/system", "/run/systemd/generator.late",
)  # fmt: skip
# Some distributions ship a drop-in for all services there, such as one for timeouts. These files
# are trusted: a distribution's packages could change any program, too.
SHIPPED = ("/usr/lib/", "/lib/")
# Variables that change what CUDA or the loader does, for any engine.
WATCHED = ("CUDA_", "LD_", "GLIBC_TUNABLES", "GCONV_PATH")
# Folders of systemd's own settings (systemd-system.conf(5)), and those that set variables.
CONFIGURED = ("/etc/systemd", "/run/systemd", "/usr/local/lib/systemd")
GIVEN = re.compile(r"^\s*(?:Default|Manager)Environment\s*=(.*)$", re.MULTILINE)
PROPERTIES = ("FragmentPath", "DropInPaths", "NeedDaemonReload")
STALE = "systemd has not read its unit file since it changed"
DROP_INS = "files beside its unit file change it"
VARIABLES = "variables change it that no plan sets"
# What the specifier %C stands for in a unit of the system.
CACHES = "/var/cache"
# The kernel shows a new program's variables as empty for a moment.
LOOKS, LOOK_SECONDS = 20, 0.05


def strange_files(unit, unit_path):
    """Files that change a unit now, or will after the next daemon-reload, sorted."""
    found = set(strange_drop_ins(unit))
    fragment = show(unit, *PROPERTIES).get("FragmentPath")
    found |= {path for path in [fragment] if path and not is_same(path, unit_path)}
    return sorted(found)


def strange_drop_ins(unit, but=None):
    """Drop-ins that no distribution ships, except for ``but``, Corral's own; sorted."""
    read = show(unit, *PROPERTIES).get("DropInPaths", "").split()
    found = {path for path in read if not path.startswith(SHIPPED)}
    found |= {str(path) for path in drop_in_files(unit)}
    return sorted(path for path in found if but is None or not is_same(path, but))


def drop_in_files(unit):
    """Drop-ins on disk for a unit, for its prefixes and for all services (systemd.unit(5))."""
    parts = unit[: -len(".service")].split("-")
    prefixes = ["-".join(parts[:count]) + "-" for count in range(1, len(parts))]
    names = [f"{unit}.d", *(f"{prefix}.service.d" for prefix in prefixes), "service.d"]
    for folder in SEARCHED:
        for name in names:
            yield from Path(folder, name).glob("*.conf")


def is_same(path, other):
    return os.path.realpath(path) == os.path.realpath(other)


def watched_prefixes(instance):
    """Prefixes of the names of variables that would change what the server does."""
    return (*engines.of(instance).variables, *runtimes.of(instance).variables, *WATCHED)


def strange_variables(instance, pid):
    """Names of variables of a running server that differ from its plan, sorted.

    An image has variables of its own (CUDA_VERSION, LD_LIBRARY_PATH), which its digest proves, and
    of the host's its server gets those alone that are named to it.
    """
    found, planned = environment_of(pid), planned_environment(instance)
    if planned is None:
        return []
    names = set(planned)
    if not runtimes.of(instance).images:
        names |= {name for name in found if name.startswith(watched_prefixes(instance))}
    return sorted(name for name in names if found.get(name) != planned.get(name))


def environment_of(pid):
    for _ in range(LOOKS):
        text = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
        if text:
            break
        time.sleep(LOOK_SECONDS)
    return dict(pair.split("=", 1) for pair in text.split("\0") if "=" in pair)


def planned_environment(instance):
    """Planned variables as a process sees them; None if the plan, of an old version, has none."""
    planned = instance.get("environment")
    return planned and {name: value.replace("%C", CACHES) for name, value in planned.items()}


def manager_variables(instance):
    """Names of variables that systemd would give to every server and that its unit does not set."""
    lines = output("systemctl", "show-environment").splitlines()
    names = {line.partition("=")[0] for line in lines} | set(configured_variables())
    return sorted(
        name
        for name in names
        if name.startswith(watched_prefixes(instance))
        and name not in (instance.get("environment") or {})
    )


def configured_variables():
    """Names of variables that systemd's settings will give to every server once it reads them."""
    for folder in CONFIGURED:
        for path in [Path(folder, "system.conf"), *Path(folder, "system.conf.d").glob("*.conf")]:
            with contextlib.suppress(FileNotFoundError):
                for pairs in GIVEN.findall(path.read_text()):
                    yield from (pair.strip("\"'").partition("=")[0] for pair in pairs.split())


def differences(instance, pid):
    """What changes a server beside its unit file, as shown to people."""
    found = {
        STALE: show(instance["unit"], "NeedDaemonReload").get("NeedDaemonReload") == "yes",
        DROP_INS: strange_files(instance["unit"], instance["unit_path"]),
        VARIABLES: strange_variables(instance, pid) or manager_variables(instance),
    }
    return [what for what, differs in found.items() if differs]


def refuse(instance):
    """Raises HostError if anything beside the unit file would change a start; changes nothing."""
    spare = instance["activation"]["spare"]
    for one in filter(None, (instance, spare)):
        if files := strange_files(one["unit"], one["unit_path"]):
            what, next_step = drop_in_fault(one["unit"], files)
            raise HostError(f"{instance['name']}: {what}", next_step)
    if names := manager_variables(instance):
        raise HostError(
            f"{instance['name']}: systemd would give its server {', '.join(names)}, which no plan "
            "sets",
            f"on the host `systemctl unset-environment {' '.join(names)}`, look for "
            "DefaultEnvironment= in /etc/systemd, then run the same deploy again",
        )


def drop_in_fault(unit, files):
    """Message and next step for files that change a unit: their names, and how to remove them."""
    own = [path for path in files if f"/{unit}.d/" in path]
    others = " ".join(path for path in files if path not in own)
    steps = [f"`systemctl revert {unit}`"] if own else []
    steps += [f"`rm {others} && systemctl daemon-reload`"] if others else []
    return (
        f"{unit} is changed by {', '.join(files)}",
        f"on the host {' and '.join(steps)}, then run the same deploy again",
    )
