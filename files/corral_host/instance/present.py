"""Instances that this host has, whatever a plan says: by their folders and their units."""

import re
from pathlib import Path

from corral_host.instance.unit_file import ENABLED, installed_generation
from corral_host.system.commands import FAULTS, output, show

NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,47}")
# Of an activation side by side, which removes it.
SPARE = "-spare"
# Units of Corral that are no servers, and end by themselves.
PASSING = ("corral-guard-", "corral-job-", "corral-bench-")


def unit_of(name):
    return f"corral-{name}.service"


def names(paths):
    """Names of all instances that were staged or installed here, sorted."""
    folders = Path(paths["state"]).glob("instances/*/generations")
    found = {one.parent.name for one in folders}
    for unit in Path(paths["units"]).glob("corral-*.service"):
        # A unit of Corral names its generation; others of such a name are the host's own.
        if installed_generation(unit) is not None:
            found.add(unit.name[len("corral-") : -len(".service")])
    known = {name for name in found if NAME.fullmatch(name)}
    return sorted(n for n in known if not (n.endswith(SPARE) and n[: -len(SPARE)] in known))


def strange_units(paths):
    """Services called corral-* that start at boot and are no instances, sorted."""
    try:
        listed = output(
            "systemctl", "list-unit-files", "--no-legend", "--plain", "--type=service",
            "--state=enabled", "corral-*.service",
        )  # fmt: skip
    except FAULTS:
        return []
    own = {unit_of(name) for name in names(paths)}
    found = {line.split()[0] for line in listed.splitlines() if line.strip()}
    return sorted(one for one in found - own if not one.startswith(PASSING))


def unplanned(plan):
    """Name -> whether it runs and whether it starts at boot, of instances that no plan has."""
    planned = {instance["name"] for instance in plan["instances"]}
    found = {}
    for name in names(plan["paths"]):
        if name not in planned:
            unit = show(unit_of(name), "ActiveState", "UnitFileState")
            runs = unit["ActiveState"] not in ("inactive", "failed")
            found[name] = {"runs": runs, "at_boot": unit["UnitFileState"] == ENABLED}
    return found
