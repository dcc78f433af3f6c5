"""The baseline of an instance: tokens/s that its profile reached on these GPUs.

A new generation is compared with <instance folder>/baseline.json. measured.json has the figures of
a generation in its gate, until it is kept.
"""

import json
import time
from pathlib import Path

from corral_host.checks.welch import is_faster
from corral_host.instance.gate_rows import gate_plan
from corral_host.system.commands import HostError, read_json, say, write_atomic


def subject(instance):
    """What must be equal for figures to be compared; the weights and the engine may differ."""
    plan = gate_plan(instance)["speed"]
    return {
        "profile": instance["profile"], "gpus": list(instance["gpus"]),
        "lengths": list(plan["prompt_tokens"]), "generated_tokens": plan["generated_tokens"],
    }  # fmt: skip


def surroundings(instance):
    """What neighbours leave on the GPUs to an automatic placement, and the placement itself."""
    return {
        "gpu_budgets_mib": list(instance.get("gpu_budgets_mib") or ()),
        "placement": instance.get("placement"),
    }


def is_moved(found, instance):
    """Whether other neighbours, and they alone, gave the instance another placement.

    Earlier figures say nothing about a server with fewer layers on the GPUs, which was asked for.
    With the same neighbours another placement follows from the weights or the engine: the figures
    are compared. A baseline of an earlier version has no surroundings, and counts.
    """
    now = surroundings(instance)
    return all(key in found and found[key] != now[key] for key in now)


def kept_file(instance):
    return Path(instance["folder"]) / "baseline.json"


def measured_file(instance):
    return Path(instance["folder"]) / "measured.json"


def kept(instance):
    """The stored baseline, of any subject, or None. Raises HostError for a damaged one."""
    path = kept_file(instance)
    try:
        found = json.loads(path.read_text())
        if not all(is_measured(one) for one in found["samples"].values()):
            raise ValueError("samples are positive numbers, two or more")
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        name = instance["name"]
        raise HostError(
            f"{path} is damaged ({type(fault).__name__}: {fault}), so it is unknown how fast "
            f"{name} was",
            f"`corral baseline HOST/{name} --forget`, then deploy again",
        ) from fault
    return found


def is_measured(samples):
    return len(samples) > 1 and all(one > 0 for one in samples)


def samples(instance):
    """Measure -> tokens/s of the baseline; empty if there is none of this subject."""
    found, wanted = kept(instance), subject(instance)
    same = found and {key: found.get(key) for key in wanted} == wanted
    return found["samples"] if same and not is_moved(found, instance) else {}


def note(instance, measured):
    """Store the figures of a generation until it is known whether it is kept."""
    document = {"generation": instance["generation"], "samples": measured}
    write_atomic(measured_file(instance), json.dumps(document) + "\n")


def drop(instance):
    """Remove the figures of a generation that is kept, or never will be."""
    measured_file(instance).unlink(missing_ok=True)


def keep_baseline(instance, rows):
    """Make the figures of a kept generation the baseline, or raise an existing one by them.

    Never lowers it. On a full disk the old one stays, which the log says.
    """
    if not any(row["part"] == "speed" and row["ok"] for row in rows):
        return
    noted = read_json(measured_file(instance)) or {}
    if noted.get("generation") != instance["generation"]:
        return
    old = samples(instance)
    new = raised(old, noted["samples"])
    if new != old:
        document = {
            **subject(instance), **surroundings(instance), "samples": new,
            "generation": instance["generation"],
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }  # fmt: skip
        try:
            write_atomic(kept_file(instance), json.dumps(document, indent=1) + "\n")
        except OSError as fault:
            say(f"the baseline of {instance['name']} was not written: {fault}")
    drop(instance)


def raised(old, new):
    """The baseline with each measure raised by itself."""
    return {
        measure: new[measure]
        if measure not in old or is_faster(new[measure], old[measure])
        else old[measure]
        for measure in new
    }


def baselines(plan):
    """The baselines of a plan's instances, as rows."""
    return [shown(instance) for instance in plan["instances"]]


def shown(instance):
    try:
        return {"instance": instance["name"], "baseline": kept(instance), "problem": ""}
    except HostError as fault:
        return {"instance": instance["name"], "baseline": None, "problem": str(fault)}


def forget(plan):
    """Remove the baselines of a plan's instances; the next kept generation makes new ones."""
    found = [one for one in plan["instances"] if kept_file(one).exists()]
    for instance in found:
        kept_file(instance).unlink()
    return {"forgotten": [instance["name"] for instance in found]}
