"""Benchmark the release and the model of an instance: beside its server, or in its place."""

import contextlib
import fcntl
import json
import os
import subprocess
import time
from pathlib import Path

from corral_host.checks.gate import PROOF, gate
from corral_host.checks.program_unit import bench_unit, cpu_name, gpu_names, measure
from corral_host.fit.memory import gpu_room, host_need, host_room, total
from corral_host.instance.state import instance_state
from corral_host.nvidia import nvidia_smi
from corral_host.release.manifest import manifest_of
from corral_host.release.whole import release_is_whole
from corral_host.system.commands import (
    FAULTS,
    HostError,
    as_fault,
    output,
    read_json,
    say,
    what_is_wrong,
    write_atomic,
)
from corral_host.system.locks import boot_id, lock_file, lock_path, read, take, write


def bench(spec):
    """Run the commands of ``spec``; returns their lines of JSON and what they ran on.

    ``spec``: host, state, instance (a name), instances (of the whole host), release (engine, key
    and folder), where (beside or stop), properties (of their units, as the server's has them),
    commands (of argv and repeat each).
    """
    instance = chosen(spec)
    with only_one(spec):
        refuse_unready(spec, instance)
        in_place = spec["where"] == "stop"
        if not in_place:
            refuse_beside(spec, instance)
        commit = manifest_of(spec["release"])["commit"]
        began = time.time()
        with stopped(instance) if in_place else contextlib.nullcontext():
            outputs = [measure(spec, instance, command) for command in spec["commands"]]
        return {**facts(instance, in_place, began, commit), "outputs": outputs}


def facts(instance, in_place, began, commit):
    """When measurements were made, how, and on what; ``began``: seconds since the epoch."""
    return {
        "began_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        "seconds": round(time.time() - began, 1),
        "where": "stopped" if in_place else "beside",
        "cpu": cpu_name(),
        "gpus": gpu_names(instance),
        "commit": commit,
    }


def chosen(spec):
    return next(one for one in spec["instances"] if one["name"] == spec["instance"])


@contextlib.contextmanager
def only_one(spec):
    """One benchmark at a time: two would disturb each other."""
    with lock_file(lock_path(spec["state"], "bench")) as lock:
        if not take(lock, fcntl.LOCK_EX, 0):
            raise HostError(
                f"a benchmark of {read(lock).strip() or 'another instance'} runs on this host",
                "wait for it, then ask again",
            )
        write(lock, spec["instance"])
        yield


def refuse_unready(spec, instance):
    name, release = f"{spec['host']}/{instance['name']}", spec["release"]
    if not release_is_whole(release):
        raise HostError(
            f"{name}: release {release['key']} of {release['engine']} is not installed",
            "deploy the host, then ask again",
        )
    for program in {command["argv"][0] for command in spec["commands"]}:
        if not os.access(program, os.X_OK):
            raise HostError(
                f"{name}: release {release['key']} has no {Path(program).name}",
                "add it to "
                f"targets in catalog/engines/{release['engine']}.toml, then deploy the host",
            )
    state = instance_state(instance, rekeyed=False)
    if state["active"] != "active":
        raise HostError(
            f"{name} does not run ({state['active']}, {state['sub']})",
            f"`corral start {name}`, or deploy the host, then ask again",
        )
    if not state["serves"]:
        raise HostError(
            f"{name} does not serve generation {instance['generation']}",
            "deploy the host, then ask again",
        )


def refuse_beside(spec, instance):
    """Raises HostError unless memory holds the instance once more beside all servers."""
    short = shortages(spec, instance)
    if short:
        raise HostError(
            f"{spec['host']}/{instance['name']}: no room beside the server: {'; '.join(short)}",
            "give --stop, which stops the server meanwhile and starts it again",
        )


def shortages(spec, instance):
    if instance["need"]["unknown"]:
        return [f"what it needs is not known ({instance['need']['unknown']})"]
    everyone = [{**one, "serves": instance_state(one)["serves"]} for one in spec["instances"]]
    copy = {**instance, "unit": bench_unit(instance["name"])}
    smi = nvidia_smi.ask() if instance["gpus"] else None
    rows = [
        (f"GPU {gpu}", total(need), gpu_room(gpu, copy, everyone, smi)["there"])
        for gpu, need in zip(instance["gpus"], instance["need"]["gpus"])
    ]
    rows.append(("host memory", host_need(instance), host_room(copy, everyone)["there"]))
    return [
        f"{device} has {max(0, there)} MiB, it needs {needs}"
        for device, needs, there in rows
        if needs > there
    ]


@contextlib.contextmanager
def stopped(instance):
    """Stop the server inside; afterwards start it and prove it healthy, whatever happened."""
    # The marker comes first: with a full disk nothing is stopped.
    write_atomic(marker(instance), json.dumps({"at": time.time(), "boot_id": boot_id()}))
    say(f"stopping {instance['name']}")
    failure = None
    try:
        output("systemctl", "stop", instance["unit"])
        yield
    except FAULTS as fault:
        failure = fault
    down = bring_back(instance)
    if failure or down:
        wrong = [one for one in (failure, down) if one]
        raise HostError("\n".join(map(what_is_wrong, wrong)), step_of(wrong)) from failure


def step_of(faults):
    """The next step of the first fault that has one."""
    return next((step for one in faults if (step := as_fault(one)["next_step"])), "")


def bring_back(instance):
    """Start the server again and prove it; returns the fault if it does not serve, else None."""
    try:
        start_again(instance)
        gate(instance, PROOF)
    except FAULTS as fault:
        what = f"{instance['name']} was stopped for this and IS DOWN: {what_is_wrong(fault)}"
        return HostError(what, as_fault(fault)["next_step"])
    marker(instance).unlink()
    say(f"{instance['name']} serves again")
    return None


def start_again(instance):
    # First free the memory of a benchmark that still runs. Its unit may not exist.
    subprocess.run(
        ["systemctl", "stop", bench_unit(instance["name"])], stderr=subprocess.DEVNULL, check=False
    )
    subprocess.run(
        ["systemctl", "reset-failed", instance["unit"]], stderr=subprocess.DEVNULL, check=False
    )
    output("systemctl", "start", instance["unit"])


def settle_bench(spec):
    """Start a server that an interrupted benchmark left stopped; returns a fault, or None."""
    instance = chosen(spec)
    if not is_stopped(instance):
        return None
    try:
        start_again(instance)
    except HostError as fault:
        return HostError(
            f"the benchmark was interrupted, and {instance['name']} IS DOWN: {fault.what}",
            fault.next_step,
        )
    marker(instance).unlink()
    return HostError(
        f"the benchmark was interrupted; {instance['name']} was started again", "ask again"
    )


def is_stopped(instance):
    """Whether a benchmark has stopped the server; after a power loss its unit is started again."""
    found = read_json(marker(instance))
    return isinstance(found, dict) and found.get("boot_id") == boot_id()


def marker(instance):
    return Path(instance["folder"]) / "benching.json"
