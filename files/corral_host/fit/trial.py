"""A trial: the real arguments on the real GPUs with dummy weights, before the weights are here.

The server runs in a transient unit that ends with the job, at the time limit at the latest. It
listens on a socket in a network of its own, with a key that opens nothing else. What it reports
about its memory is stored by release, configuration files, arguments, variables and GPUs, so that
each combination is tried once.
"""

import contextlib
import fcntl
import hashlib
import json
import math
import os
import secrets
import subprocess
import threading
import time
from pathlib import Path

from corral_host import engines
from corral_host.fit.memory import find
from corral_host.nvidia import nvidia_smi
from corral_host.plans.fields import environment
from corral_host.server.http import chat, health
from corral_host.server.probe_client import ask, refuse_other
from corral_host.system import kernel
from corral_host.system.commands import (
    FAULTS,
    TAIL_LINES,
    HostError,
    quiet,
    read_json,
    say,
    what_is_wrong,
    write_atomic,
)
from corral_host.system.locks import (
    activate_lock,
    held,
    lock_file,
    lock_path,
    refuse_other_operator,
)
from corral_host.weights.fetch import fetch_missing

MIB = 1024**2
# Like a server's unit, but the socket's network is its own and everything else is temporary.
PROPERTIES = (
    "DynamicUser=yes", "PrivateNetwork=yes", "NoNewPrivileges=yes", "ProtectHome=yes",
    "CapabilityBoundingSet=", "UMask=0077", "LimitCORE=0", "LimitNOFILE=65535",
    "OOMScoreAdjust=800", "TimeoutStopSec=20", "WorkingDirectory=/tmp",
)  # fmt: skip
# Variables with folders of the server's own cache.
OWN_FOLDERS = ("HOME", "CUDA_CACHE_PATH")
# GPUs report less than a whole MiB as free.
MARGIN_MIB = 64
PAUSE_SECONDS = 0.5
ANSWER_SECONDS = 120
STORED = 100
STEP = "fix that in the profile or on the host, then run the same deploy again"


def trial(spec):
    """Try an instance; returns its figures, or why it was not tried. Raises HostError if it failed.

    ``spec``: by, paths, instance (with ``trial`` and ``chat_template``, a text), shards (of the
    instance), token; asker, the current operator, see locks.py.
    """
    instance = spec["instance"]
    configs = [shard for shard in spec["shards"] if shard["kind"] != "weights"]
    fetch_missing({**spec, "shards": configs})
    smi = nvidia_smi.ask() if instance["gpus"] else None
    store = stored_path(spec, configs, smi)
    known = read_json(store)
    if known:
        say(f"{instance['name']}: tried before, at {known['at']}")
        return {**known, "instance": instance["name"], "known": True}
    # A rollout that holds this host activates, for which it needs the memory.
    refuse_other_operator(spec.get("asker"))
    with only_one(spec):
        why = shortage(spec, smi)
        if why:
            return {"instance": instance["name"], "figures": None, "skipped": why}
        found = tried(spec)
    write_atomic(store, json.dumps(found) + "\n")
    forget_oldest(store.parent)
    return {**found, "instance": instance["name"], "known": False}


def stored_path(spec, configs, smi):
    """The file of the figures; its name covers all that decides them."""
    instance = spec["instance"]
    subject = [
        instance["release"], instance["trial"]["argv"], environment(instance),
        instance["chat_template"], sorted(shard["sha256"] for shard in configs),
        [gpu_facts(gpu, smi) for gpu in instance["gpus"]],
        kernel.memory()["total_mib"] if not instance["gpus"] else None,
    ]  # fmt: skip
    digest = hashlib.sha256(json.dumps(subject, sort_keys=True).encode()).hexdigest()[:32]
    folder = Path(spec["paths"]["state"]) / "trials"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder / f"{digest}.json"


def gpu_facts(wanted, smi):
    gpu = gpu_of(wanted, smi)
    return [gpu["uuid"], gpu["name"], gpu["memory_total_mib"], gpu["driver_version"]]


def gpu_of(wanted, smi):
    gpu = find(wanted, smi)
    if gpu is None or gpu["memory_free_mib"] is None or gpu["memory_total_mib"] is None:
        raise HostError(f"nvidia-smi does not report the memory of GPU {wanted}: {smi['problem']}")
    return gpu


@contextlib.contextmanager
def only_one(spec):
    """One trial at a time, and no activation meanwhile, which may need the same memory."""
    state, name = spec["paths"]["state"], spec["instance"]["name"]
    with lock_file(lock_path(state, "trial")) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with held(activate_lock(state), spec["by"], f"trying {name} with dummy weights"):
            yield


def shortage(spec, smi):
    """Why there is no room for it beside what runs; "" if there is."""
    instance, engine = spec["instance"], engines.of(spec["instance"])
    rows = []
    for wanted in instance["gpus"]:
        gpu = gpu_of(wanted, smi)
        needs = engine.trial_gpu_mib(instance, gpu["memory_total_mib"]) + MARGIN_MIB
        rows.append((f"GPU {wanted}", needs, gpu["memory_free_mib"]))
    weights = sum(shard["size_bytes"] for shard in spec["shards"] if shard["kind"] == "weights")
    needs = engine.trial_host_mib(instance, math.ceil(weights / MIB))
    rows.append(("host memory", needs, kernel.memory()["available_mib"]))
    return "; ".join(
        f"{device} has {there} MiB free, it takes {needs}"
        for device, needs, there in rows
        if needs > there
    )


def tried(spec):
    """Run it until it has answered a request; returns what it reported."""
    instance, lines, began = spec["instance"], [], time.monotonic()
    name = instance["name"]
    say(f"{name}: starting it with dummy weights")
    fault, seen = None, None
    with running(spec, lines) as (program, key):
        try:
            wait_answered(spec, program, key)
        except FAULTS as wrong:
            fault = wrong
            # The last lines of one that ended are still to come; one that runs is stopped now, and
            # what it says of that is no reason.
            seen = len(lines) if program.poll() is None else None
    log = "\n".join(lines[:seen])
    if fault:
        raise failed(instance, fault, seen is None, log) from fault
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(time.monotonic() - began, 1),
        "figures": engines.of(instance).memory_report(log),
        "skipped": "",
    }


@contextlib.contextmanager
def running(spec, lines):
    """The server in its unit, its log in ``lines``; it has ended afterwards, whatever happened."""
    # Hexadecimal: vLLM takes a key that begins with a dash for a flag.
    instance, key = spec["instance"], secrets.token_hex(32)
    unit = instance["trial"]["unit"]
    end(unit)
    with credentials(instance, key) as lent:
        options = [f"--property={value}" for value in (*PROPERTIES, *limits(spec), *lent)]
        options += [f"--setenv={name}={value}" for name, value in variables(instance).items()]
        command = ["systemd-run", "--pipe", "--wait", "--collect", "--quiet", f"--unit={unit}"]
        with subprocess.Popen(
            [*command, *options, "--", *instance["trial"]["argv"]], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        ) as program:  # fmt: skip
            listener = threading.Thread(target=listen, args=(program.stdout, lines))
            listener.start()
            try:
                yield program, key
            finally:
                end(unit)
                listener.join()


def limits(spec):
    """Properties that end the unit with the job, at the time limit at the latest."""
    instance = spec["instance"]
    job = f"corral-job-trial-{instance['name']}.service"
    folder = Path(instance["trial"]["socket"]).parent.name
    return (
        f"BindsTo={job}", f"After={job}", f"RuntimeDirectory={folder}",
        f"RuntimeMaxSec={instance['ready_timeout_seconds'] + ANSWER_SECONDS}",
    )  # fmt: skip


@contextlib.contextmanager
def credentials(instance, key):
    """Properties that give the unit its key and chat template, which are in no file.

    systemd reads them from this process's memory.
    """
    texts = {"keys.yaml": engines.of(instance).key_document([key])}
    if instance["chat_template"] is not None:
        texts["chat-template.jinja"] = instance["chat_template"]
    with contextlib.ExitStack() as opened:
        found = []
        for name, text in texts.items():
            memory = opened.enter_context(os.fdopen(os.memfd_create(name), "w"))
            memory.write(text)
            memory.flush()
            found.append(f"LoadCredential={name}:/proc/{os.getpid()}/fd/{memory.fileno()}")
        yield found


def variables(instance):
    kept = {k: v for k, v in environment(instance).items() if k not in OWN_FOLDERS}
    return {**kept, "HOME": "/tmp"}


def listen(stream, lines):
    for line in stream:
        say(line.rstrip())
        lines.append(line.rstrip())


def end(unit):
    """Stop the unit; it may not exist."""
    quiet("stop", "--quiet", unit)
    quiet("reset-failed", "--quiet", unit)


def wait_answered(spec, program, key):
    """Wait until the server answers a request. Raises HostError if it ends before."""
    instance = spec["instance"]
    endpoint = {"socket": instance["trial"]["socket"], "address": None, "port": None}
    # Without a unit's name nobody asks whose the socket is: its folder is this unit's alone.
    server = {"endpoint": endpoint, "alias": instance["alias"]}
    limit = instance["ready_timeout_seconds"]
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        if program.poll() is not None:
            raise HostError("the server ended")
        if health(server) == "200":
            body = {**chat(server), "max_tokens": 1}
            refuse_other(*ask(server, "POST /v1/chat/completions", body, key, ANSWER_SECONDS))
            return
        time.sleep(PAUSE_SECONDS)
    raise HostError(
        f"not ready within {limit} s",
        "raise ready_timeout_seconds in the profile, then run the same deploy again",
    )


def failed(instance, fault, ended, log):
    """The message of a failed trial: with the reason that the log gives, else with its end.

    An error in the log of a server that still runs may have nothing to do with the failure, so it
    stands behind what failed.
    """
    reason = engines.of(instance).why_it_ended(log)
    what = f"{instance['name']}: with dummy weights it does not serve"
    if reason and ended:
        return HostError(f"{what}: {reason[0]}", f"{reason[1]}; then run the same deploy again")
    tail = "\n".join(log.splitlines()[-TAIL_LINES:])
    more = f"; its log says: {reason[0]}" if reason else f". Its last lines:\n{tail}"
    step = fault.next_step if isinstance(fault, HostError) else ""
    return HostError(f"{what}: {what_is_wrong(fault)}{more}", step or STEP)


def forget_oldest(folder):
    """Keep the newest results: each is small, and one that is gone costs another run."""
    found = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    for path in found[:-STORED]:
        path.unlink()
