"""Reports of past activations on this host, and generations with their pins."""

import contextlib
import json
import os
from pathlib import Path

from corral_host.instance.stored_plan import KEPT_LINKS, STAGED, plan_path
from corral_host.system.commands import HostError, point, read_json, write_atomic

KEPT_REPORTS = 50
NO_PINS = (*KEPT_LINKS, STAGED)


def record(folder, report):
    """Write a report beside the generations, and remove the oldest beyond KEPT_REPORTS."""
    reports = Path(folder) / "history"
    reports.mkdir(exist_ok=True)
    name = f"{report['at']}-{report['to']}.json"
    write_atomic(reports / name, json.dumps(report, indent=1) + "\n")
    for old in sorted(reports.glob("*.json"))[:-KEPT_REPORTS]:
        old.unlink()


def history(paths):
    """Reports of all instances, newest first."""
    files = (Path(paths["state"]) / "instances").glob("*/history/*.json")
    found = [read_json(path) for path in files]
    return sorted((one for one in found if one), key=lambda one: one["at"], reverse=True)


def generation(document):
    """All that this host has of one generation. Raises HostError if it is not here.

    ``generation``: None for the previous one.
    """
    folder = instance_folder(document)
    name = document["generation"] or before(folder)
    plan = plan_of(folder, name)
    reports = [read_json(path) for path in sorted((folder / "history").glob(f"*-{name}.json"))]
    return {
        "plan": plan,
        "unit": (folder / "generations" / name / "unit").read_text(),
        "reports": [one for one in reports[::-1] if one],
        "links": [link for link, target in links(folder).items() if target == name],
    }


def instance_folder(document):
    return Path(document["paths"]["state"]) / "instances" / document["instance"]


def before(folder):
    try:
        return Path(os.readlink(folder / "previous")).name
    except FileNotFoundError as fault:
        raise HostError(
            f"{folder.name}: this host has no previous generation of it",
            "name one that `corral history` lists",
        ) from fault


def links(folder):
    """Name of each link -> the generation that it points to."""
    found = [path for path in sorted(folder.glob("*")) if path.is_symlink()]
    return {path.name: Path(os.readlink(path)).name for path in found}


def plan_of(folder, generation):
    """The plan with which a generation was kept last, else staged. Raises HostError."""
    plan = read_json(plan_path(folder, generation))
    if plan is None or not (folder / "generations" / generation / "unit").is_file():
        here = sorted(path.name for path in folder.glob("generations/*"))
        raise HostError(
            f"{folder.name}: generation {generation} is not whole here",
            f"choose one of {', '.join(here) or 'none'}, or deploy it again",
        )
    # Plans of earlier versions do not have these keys.
    nothing = {"golden": [], "speed": None, "perplexity": None, "soak_seconds": 0}
    switch = {"how": "auto", "spare": None, "drain_seconds": 60, "confirm_seconds": 120}
    return {"gate": nothing, "activation": switch, **plan}


def pin(document):
    """Pin a generation under a name: nothing that it needs is pruned."""
    folder, name = instance_folder(document), document["name"]
    plan_of(folder, document["generation"])
    if name in NO_PINS or not name.replace("-", "").isalnum():
        raise HostError(f"{name!r} is no name for a pin", "use letters, digits and dashes")
    if (folder / name).exists() and not (folder / name).is_symlink():
        raise HostError(f"{name!r} is a folder of the instance", "choose another name")
    point(folder / name, f"generations/{document['generation']}")
    return {"pinned": document["generation"], "name": name}


def unpin(document):
    """Remove a pin. Raises HostError if there is none."""
    path = instance_folder(document) / document["name"]
    if document["name"] in NO_PINS or not path.is_symlink():
        raise HostError(f"{path.parent.name} has no pin {path.name}", "`corral show` lists them")
    pinned = Path(os.readlink(path)).name
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    return {"unpinned": pinned, "name": path.name}
