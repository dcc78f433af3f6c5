"""Figures of this host for monitoring, written as one file for node_exporter.

What is unknown has no sample. A part that fails leaves out its own samples alone, and counts in
corral_unreadable.
"""

from corral_host.monitoring.drift import drifted, look_again
from corral_host.monitoring.gpus import driver, gpus
from corral_host.monitoring.hashed import weights
from corral_host.monitoring.requests import requests
from corral_host.monitoring.servers import servers
from corral_host.monitoring.textfile import Textfile
from corral_host.system.commands import FAULTS, say
from corral_host.system.locks import rollout_here


def metrics(document):
    """Write the textfile. ``document``: paths (of a HostPlan) and textfile (a path)."""
    found, paths = Textfile(), document["paths"]
    parts = (gpus, driver, servers, requests, weights, drifted, rollout)
    failed = [part.__name__ for part in parts if not works(part, found, paths)]
    found.add("corral_unreadable", len(failed))
    found.write(document["textfile"])
    works(look_again, paths)
    return {"samples": sum(map(len, found.blocks.values())), "unreadable": failed}


def works(part, *arguments):
    """Call a part; whether it succeeded. A damaged file must not hide a GPU that fails."""
    try:
        part(*arguments)
    except (*FAULTS, TypeError, AttributeError) as fault:
        say(f"{part.__name__}: {type(fault).__name__}: {fault}")
        return False
    return True


def rollout(found, paths):
    """Whether a rollout holds this host."""
    found.add("corral_rollout_holds", rollout_here(paths["state"]) is not None)
