"""Switch an instance to a generation, keep it if it passes the gate, else put the old one back."""

import json
import subprocess
import time
from pathlib import Path

from corral_host.gate import PROOF, before_start, gate, keep_baseline
from corral_host.instances import installed_generation, instance_state
from corral_host.tools import FAULTS, HostError, output, point, read_json, say, write_atomic


def activate(instance):
    """Switch to a staged generation; keep it if it passes the gate, else put the old one back."""
    if instance_state(instance)["serves"]:
        say(f"generation {instance['generation']} of {instance['name']} serves already")
        return
    folder = Path(instance["folder"])
    unfinished = read_json(folder / "activating.json")
    old = unfinished["from"] if unfinished else installed_generation(instance["unit_path"])
    journal = {"from": old, "to": instance["generation"], "instance": instance}
    write_atomic(folder / "activating.json", json.dumps(journal))
    try:
        rows = before_start(instance)
        switch(instance, instance["generation"])
        rows += gate(instance)
    except FAULTS as fault:
        raise HostError(f"{fault}\n{revert(instance, old)}") from fault
    keep(instance, old)
    keep_baseline(instance, rows)


def switch(instance, generation):
    text = (Path(instance["folder"]) / "generations" / generation / "unit").read_text()
    write_atomic(instance["unit_path"], text)
    say(f"starting generation {generation} of {instance['name']}")
    output("systemctl", "daemon-reload")
    output("systemctl", "enable", "--quiet", instance["unit"])
    subprocess.run(["systemctl", "reset-failed", instance["unit"]], stderr=subprocess.DEVNULL)
    subprocess.run(["systemctl", "restart", instance["unit"]], check=False)


def keep(instance, old):
    folder, new = Path(instance["folder"]), instance["generation"]
    if old and old != new and (folder / "generations" / old).is_dir():
        point(folder / "previous", f"generations/{old}")
    point(folder / "current", f"generations/{new}")
    receipt = {"generation": new, "at": time.time()}
    write_atomic(folder / "receipt.json", json.dumps(receipt) + "\n")
    (folder / "activating.json").unlink()
    say(f"generation {new} of {instance['name']} is healthy")


def revert(instance, old):
    """Back to the generation that served before; says how that went. Needs no network."""
    folder, new = Path(instance["folder"]), instance["generation"]
    known = old and (folder / "generations" / old / "unit").is_file()
    if old == new:
        outcome = f"generation {new} was already the current one; there is none to go back to"
    elif known:
        before = read_json(folder / "generations" / old / "plan.json")
        outcome = restore(before, old)
    else:
        subprocess.run(["systemctl", "disable", "--now", "--quiet", instance["unit"]], check=False)
        Path(instance["unit_path"]).unlink(missing_ok=True)
        output("systemctl", "daemon-reload")
        outcome = "no generation served before: the unit was stopped and removed"
    (folder / "activating.json").unlink(missing_ok=True)
    return outcome


def restore(before, old):
    try:
        switch(before, old)
        gate(before, PROOF)
    except FAULTS as fault:
        return f"REVERT FAILED, {before['name']} is down on generation {old}: {fault}"
    return f"Reverted: generation {old} serves again"


def settle_activation(instance):
    """Undo an activation whose process is gone; tells the outcome, or None if all is well."""
    unfinished = read_json(Path(instance["folder"]) / "activating.json")
    if not unfinished:
        return None
    return f"activation was interrupted. {revert(unfinished['instance'], unfinished['from'])}"
