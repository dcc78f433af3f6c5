"""Prove that instances fit on this host by the engine's own count, before weights are fetched."""

import os

from corral_host import engines
from corral_host.fit.memory import find, gpu_room, host_room, total
from corral_host.nvidia import nvidia_smi
from corral_host.plans.fields import drafts_tokens, weights_mapped
from corral_host.system.commands import HostError, as_fault
from corral_host.weights import hub
from corral_host.weights.headers import proof_folder, put
from corral_host.weights.receipts import shard_is_proved

PARTS = ("weights_mib", "kv_mib", "compute_mib", "runtime_mib")
NOTHING = dict.fromkeys(PARTS, 0)
# So much of the weights stays in memory on any host (corral/fit/answer.py).
LEAST_MAPPED_MIB = 1024
AGAIN = "fix that in the profile or on the host, then run the same deploy again"


def prove(document):
    """A verdict for each waiting instance of a plan; serving ones count as its neighbours.

    ``document``: a HostPlan with ``waiting``, the names of instances that do not serve it yet.
    """
    engines = {release["key"]: release["engine"] for release in document["releases"]}
    known = hub.with_token(document["shards"], document.get("token"))
    shards = {shard["path"]: shard for shard in known}
    everyone = [
        {
            **one,
            "host": document["host"],
            "engine": engines[one["release"]],
            "serves": one["name"] not in document["waiting"],
        }
        for one in document["instances"]
    ]
    smi = nvidia_smi.ask()
    try:
        with proof_folder(document["paths"]) as folder:
            return [
                verdict(one, [other for other in everyone if other is not one], shards, folder, smi)
                for one in everyone
                if not one["serves"]
            ]
    except OSError as fault:
        what = f"the files of the proof cannot be written: {fault}"
        raise HostError(what, "fix that, deploy again") from fault


def verdict(instance, others, shards, folder, smi):
    rows, notes = [], []
    try:
        tool = count(instance, [shards[path] for path in instance["shards"]], folder, smi, notes)
        rows += gpu_rows(instance, tool, others, smi)
        rows.append(host_row(instance, tool, others, notes))
        refuse_shortage(instance, rows)
        found, message = None, ""
    except (HostError, OSError) as fault:
        found = as_fault(fault)
        what = found["what"].replace("\n", " ")
        found["what"] = f"{instance['name']}: {what}"
        found["next_step"] = found["next_step"] or AGAIN
        message = f"{found['what']}\n  Next: {found['next_step']}"
    return {
        "instance": instance["name"],
        "ok": not message,
        "rows": rows,
        "notes": notes,
        "message": message,
        "fault": found,
    }


def count(instance, shards, folder, smi, notes):
    """The engine's own count; None if only the plan's figures are known, which a note explains."""
    unknown = instance["need"]["unknown"]
    if not engines.of(instance).reads_gguf:
        counted = f"not counted: {unknown}" if unknown else "counted from the headers"
        notes.append(f"{counted}. Its gate proves that it fits")
        return None
    if not all(shard["header"] or shard_is_proved(shard) for shard in shards):
        raise HostError(
            f"fit not proved: {unknown}", "run the same deploy again once the hub can be reached"
        )
    if instance["fit_argv"] is None or lacks_tool(instance):
        tool = engines.of(instance).fit_tool or "program that counts memory"
        notes.append(f"{instance['engine']} has no {tool}: counted from the header")
        notes.extend([f"known in part: {unknown}"] if unknown else [])
        return None
    if crowded(instance, smi):
        tool = engines.of(instance).fit_tool
        notes.append(f"too little is free for {tool} itself: counted from the header")
        return None
    home = folder / instance["name"]
    home.mkdir()
    paths = [put(shard, home) for shard in shards]
    return engines.of(instance).counted_memory(instance, paths[0])


def lacks_tool(instance):
    """Whether the program cannot run here: a site's image lacks it, or root would unpack an image.

    Root has fewer capabilities in a container of its own than apptainer asks for to unpack one.
    """
    runtime = instance.get("runtime") or {}
    is_absent = bool(runtime.get("image")) and not os.path.exists(instance["fit_argv"][0])
    return is_absent or bool(runtime.get("unpacks"))


def crowded(instance, smi):
    """Whether a GPU has too little free memory for one more CUDA context."""
    if instance["need"]["unknown"]:
        return False
    found = [(find(gpu, smi), need) for gpu, need in zip(instance["gpus"], plans(instance))]
    return any(gpu and (gpu["memory_free_mib"] or 0) < need["runtime_mib"] for gpu, need in found)


def plans(instance):
    """What the instance needs of each GPU of its set, by its plan."""
    known = instance["need"]["gpus"]
    return [*known, *[NOTHING] * (len(instance["gpus"]) - len(known))]


def gpu_rows(instance, tool, others, smi):
    rows = []
    for number, (gpu, plan) in enumerate(zip(instance["gpus"], plans(instance))):
        seen = tool.get(f"CUDA{number}") if tool else None
        if tool and not seen and must_be_seen(instance, number, plan):
            raise HostError(
                f"{engines.of(instance).fit_tool} sees no CUDA{number}, so the server would not "
                f"use GPU {gpu}",
                "check that nvidia-smi lists it and that the driver fits the release's toolkit",
            )
        parts = combined(instance, plan, seen, min)
        room = gpu_room(gpu, instance, others, smi)
        rows.append(row(instance, f"GPU {gpu}", parts, room, seen, plan))
    return rows


def must_be_seen(instance, number, plan):
    """Whether the tool must see a GPU; with split mode none only the first of a set is used."""
    if instance["need"]["unknown"]:
        return number == 0
    return plan["weights_mib"] + plan["kv_mib"] > 0


def host_row(instance, tool, others, notes):
    """The row of main memory. Mapped weights need none: with less memory they are only slower."""
    seen = tool["Host"] if tool else None
    plan = instance["need"]["host"] or NOTHING
    parts = combined(instance, plan, seen, max)
    mapped = parts["weights_mib"] if weights_mapped(instance) else 0
    if mapped and seen:
        # Weights that the engine does not count as mapped are repacked into memory of its own.
        mapped = min(mapped, seen["weights_mib"])
    parts["weights_mib"] -= mapped
    room = host_room(instance, others)
    left = room["there"] - total(parts)
    if mapped >= LEAST_MAPPED_MIB and mapped > left >= 0:
        notes.append(
            f"{gib(mapped)} of weights are mapped and {gib(left)} of memory is left for them: "
            "they will be read from disk again and again"
        )
    return row(instance, "host memory", parts, room, seen, plan)


def combined(instance, plan, seen, of_compute):
    """Combine the plan's count with the engine's: the larger of two exact figures.

    For compute buffers on GPUs the smaller bound holds: the engine's program counts logits for a
    whole batch, a server makes one for each slot. An MTP block has its own KV cache and compute
    buffers, which that program leaves out, as it does with a projector.
    """
    if seen is None:
        return dict(plan)
    if instance["need"]["unknown"]:
        return {**seen, "runtime_mib": plan["runtime_mib"]}
    pick = max if drafts_tokens(instance) or instance.get("projector") else of_compute
    return {
        "weights_mib": max(seen["weights_mib"], plan["weights_mib"]),
        "kv_mib": max(seen["kv_mib"], plan["kv_mib"]),
        "compute_mib": pick(seen["compute_mib"], plan["compute_mib"]),
        "runtime_mib": plan["runtime_mib"],
    }


def row(instance, device, parts, room, seen, plan):
    return {
        "device": device,
        "needs_mib": total(parts),
        "there_mib": room["there"],
        "counted": parts,
        "tool": seen,
        "tool_name": engines.of(instance).fit_tool,
        "plan": plan,
        "room": room,
    }


def refuse_shortage(instance, rows):
    short = [one for one in rows if one["needs_mib"] > one["there_mib"]]
    if not short:
        return
    name, profile = f"{instance['model']}/{instance['quant']}", instance["profile"]
    command = f"corral fit {name} --profile {profile} --host {instance['host']}"
    advice = 'choose placement = "auto", a smaller context or a smaller quant'
    if all(one["device"] == "host memory" for one in short):
        advice = "choose a smaller context, fewer slots or a smaller prompt_cache_mib"
    elif any(one["plan"].get("reserved_mib") for one in short):
        advice = "lower gpu_memory_utilization, or free the GPU"
    raise HostError("; ".join(map(shortage, short)), f"{advice} (`{command}`)")


def shortage(one):
    room = one["room"]
    parts = [f"free {gib(room['free'])}", f"held by itself {gib(room['own'])}"]
    parts += [f"still to be taken by {name} {gib(mib)}" for name, mib in room["taken"].items()]
    parts += [f"held by {stranger}" for stranger in room["strangers"]]
    there = gib(max(one["there_mib"], 0))
    said = f"{one['device']}: {gib(one['needs_mib'])} needed, {there} is there"
    return f"{said} ({', '.join(parts)})"


def gib(mib):
    return f"{mib / 1024:.1f} GiB"
