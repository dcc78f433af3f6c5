"""Checks before an activation touches anything. Each finding is a HostError."""

from pathlib import Path

from corral_host.activation.journal import RECEIPT
from corral_host.bench.measure import is_stopped
from corral_host.fit.prove import verdict
from corral_host.instance import unit_changes
from corral_host.instance.history import plan_of
from corral_host.instance.state import DISABLED, EDITED, GATE, generation_is_whole, instance_state
from corral_host.instance.stored_plan import changed_parts
from corral_host.instance.unit_changes import STALE
from corral_host.instance.unit_file import installed_generation
from corral_host.nvidia import nvidia_smi
from corral_host.packets import redirect
from corral_host.plans.fields import engine, release_folder
from corral_host.release.manifest import check_contents
from corral_host.release.releases import MANIFEST
from corral_host.release.whole import release_is_whole
from corral_host.system.commands import FAULTS, HostError, read_json, show, what_is_wrong
from corral_host.system.processes import listeners
from corral_host.weights.headers import proof_folder
from corral_host.weights.receipts import receipt_path, shard_is_proved

GOES_ON = "without a restart"
# Differences that can be corrected while the server keeps running.
AROUND_IT = {EDITED, DISABLED, STALE, GATE}
AGAIN = "fix that, then run the same deploy again"


def served_before(instance):
    """Plan of the generation that a revert would go back to, or None.

    Raises HostError if one serves now but could not be started again.
    """
    folder = Path(instance["folder"])
    active = show(instance["unit"], "ActiveState")["ActiveState"] == "active"
    old = installed_generation(instance["unit_path"])
    if old is None and active:
        # Somebody removed or replaced the unit file of a running server.
        old = receipt(folder).get("generation")
    if old is None:
        return None
    try:
        before = plan_of(folder, old)
        if old != instance["generation"]:
            refuse_broken(before)
    except FAULTS as fault:
        if not active:
            # It does not serve and could not be started: there is nothing to lose.
            return None
        raise HostError(
            f"{instance['name']}: it could not be reverted, as generation {old}, which serves, "
            f"could not be started again: {what_is_wrong(fault)}",
            "put that back; or stop the instance and deploy again, which then cannot be reverted",
        ) from fault
    return before


def receipt(folder):
    return read_json(Path(folder) / RECEIPT) or {}


def refuse_broken(plan):
    """Check a generation on this host: its release by every byte, its weights by receipt."""
    refuse_changed_release(release_folder(plan))
    for path in plan["shards"]:
        receipt = read_json(receipt_path({"path": path}))
        if not receipt or not shard_is_proved({"path": path, "sha256": receipt["sha256"]}):
            raise HostError(f"{path} is missing or not proved", "deploy it again")


def refuse_changed_release(folder):
    manifest = read_json(folder / MANIFEST)
    if manifest is None:
        raise HostError(f"{folder} is not a whole release", AGAIN)
    check_contents(folder, manifest)


def findings(spec):
    """Reasons the generation cannot be activated, and the rows of the proof that it fits."""
    faults, rows = [], []
    for check in (refuse_incomplete, refuse_changed_unit, refuse_taken_port, refuse_benchmark):
        try:
            check(spec)
        except FAULTS as fault:
            faults.append(fault)
    try:
        rows = fit_rows(spec)
    except FAULTS as fault:
        faults.append(fault)
    return faults, rows


def refuse_incomplete(spec):
    instance = spec["instance"]
    name, generation = instance["name"], instance["generation"]
    if not generation_is_whole(Path(instance["folder"]) / "generations" / generation, instance):
        raise HostError(f"{name}: generation {generation} is not here", "run the deploy again")
    release = next(one for one in spec["releases"] if one["key"] == instance["release"])
    if not release_is_whole(release):
        raise HostError(f"{name}: release {release['key']} is not whole", AGAIN)
    refuse_changed_release(Path(release["folder"]))
    missing = [one["path"] for one in spec["shards"] if not shard_is_proved(one)]
    if missing:
        raise HostError(f"{name}: {', '.join(missing)}: missing or not proved", AGAIN)


def refuse_changed_unit(spec):
    """With changed units, the server that passes the gate would not be the planned one."""
    unit_changes.refuse(spec["instance"])


def refuse_taken_port(spec):
    instance = spec["instance"]
    holder = holder_of(instance["endpoint"])
    if holder and holder["unit"] != instance["unit"]:
        raise HostError(
            f"{instance['name']}: port {instance['endpoint']['port']} is taken by "
            f"{holder['unit'] or holder['program']} (pid {holder['pid']})",
            "stop it on the host, or give the instance another port",
        )


def holder_of(endpoint):
    return listeners([endpoint["port"]]).get(str(endpoint["port"])) if endpoint["port"] else None


def refuse_benchmark(spec):
    if is_stopped(spec["instance"]):
        raise HostError(
            f"{spec['instance']['name']} is being measured", "wait for the benchmark's end"
        )


def fit_rows(spec):
    """Rows of the proof that the new generation fits in place of the old. Raises HostError."""
    instance = spec["instance"]
    everyone = [placed(one, spec) for one in spec["instances"]]
    mine = next(one for one in everyone if one["name"] == instance["name"])
    others = [one for one in everyone if one is not mine]
    shards = {shard["path"]: shard for shard in spec["shards"]}
    smi = nvidia_smi.ask()
    with proof_folder(spec["paths"]) as folder:
        found = verdict(mine, others, shards, folder, smi)
    if not found["ok"]:
        held = [name for row in found["rows"] for name in row["room"]["strangers"]]
        seen = f" (there: {', '.join(held)})" if held else ""
        raise HostError(f"{found['fault']['what']}{seen}", found["fault"]["next_step"])
    return found["rows"]


def placed(instance, spec):
    serves = not set(instance_state(instance)["differs"]) - AROUND_IT
    return {**instance, "host": spec["host"], "engine": engine(instance), "serves": serves}


def decide(spec, before, rows):
    """first, in place, side by side or GOES_ON. Raises HostError if the wanted is impossible."""
    if before is None:
        return "first"
    wanted = spec["instance"]["activation"]["how"]
    # A server that is down has no clients whom a gap would affect.
    serves = show(spec["instance"]["unit"], "ActiveState")["ActiveState"] == "active"
    if serves and may_go_on(spec["instance"], rows, spec.get("rekeyed", True)):
        return GOES_ON
    if not serves or wanted == "in-place" or (wanted == "auto" and spec["drained"]):
        return "in place"
    obstacle = side_by_side_obstacle(spec, before, rows)
    if obstacle and wanted == "side-by-side":
        name = spec["instance"]["name"]
        raise HostError(
            f"{name}: no switch side by side: {obstacle}",
            'fix that, or set "activation": "auto" for the instance',
        )
    return "in place" if obstacle else "side by side"


def may_go_on(instance, rows, rekeyed=True):
    """Whether only what surrounds the server differs, and it is the one that passed the gate.

    A server that was started later may come from an edited unit file. ``rows``: of the proof that
    it fits; perplexity is measured beside the server and needs memory too. ``rekeyed``: whether
    staged keys will be put in place.
    """
    differs = set(instance_state(instance, rekeyed=rekeyed)["differs"])
    if not differs or differs - AROUND_IT:
        return False
    if "perplexity" in changed_parts(instance) and not all(map(holds_two, rows)):
        return False
    now = show(instance["unit"], "InvocationID")["InvocationID"]
    return differs <= {DISABLED, GATE} or receipt(instance["folder"]).get("invocation") == now


def side_by_side_obstacle(spec, before, rows):
    """The first reason why a switch side by side is impossible, or None."""
    instance = spec["instance"]
    spare = instance["activation"]["spare"]
    if spare is None:
        return "it listens on a unix socket"
    if beyond := redirect.out_of_reach(before["endpoint"], spare["endpoint"]):
        return beyond
    if taken := holder_of(spare["endpoint"]):
        return f"its spare port {spare['endpoint']['port']} is taken by {taken['program']}"
    if short := [row["device"] for row in rows if not holds_two(row)]:
        return f"no room for two on {', '.join(short)}"
    return redirect.unusable(instance["name"])


def holds_two(row):
    """Whether memory holds old and new at once, then the new one twice while its spare serves."""
    room, needs = row["room"], row["needs_mib"]
    beside = room["there"] - room["own"]
    return beside >= needs and room["there"] >= 2 * needs
