"""Run servers with other settings, one after the other: beside the server, or in its place.

Each run starts a server in a unit and a network of its own, sends it requests from inside of the
unit, and ends it. Nothing outside can reach it, and nothing of it stays.
"""

import contextlib
import json
import os
import secrets
import sys
import time
from pathlib import Path

from corral_host import engines
from corral_host.bench import tune_child
from corral_host.bench.load import tokens
from corral_host.bench.measure import (
    chosen,
    facts,
    only_one,
    refuse_unready,
    shortages,
    stopped,
)
from corral_host.checks.program_unit import (
    BESIDE,
    InVainError,
    bench_unit,
    last,
    listened,
    refuse_started,
    transient,
)
from corral_host.nvidia.figures import figures
from corral_host.release.manifest import manifest_of
from corral_host.system.commands import HostError, say, what_is_wrong

FREQUENCY = "cpu MHz"
TEMPERATURES = Path("/sys/class/thermal")
GPU_FIELDS = (
    "index", "clock_sm_mhz", "clock_memory_mhz", "temperature_celsius", "power_watts", "throttled",
)  # fmt: skip
# Of a server's own words about its failure.
MOST_CHARACTERS = 2000


def tune(spec):
    """Make the runs of ``spec``; returns the figures of each, or why it has none.

    ``spec``: host, state, instance (a name), instances (of the whole host), release (engine, key
    and folder), where (beside or stop), commands (none), servers (argv, environment, properties of
    a unit, need and ready_seconds of each setting, the current one first), order (their numbers),
    requests (see tune_child) and limit_seconds of the requests of a run.
    """
    instance = chosen(spec)
    with only_one(spec):
        refuse_unready(spec, instance)
        in_place = spec["where"] == "stop"
        if not in_place:
            refuse_beside(spec, instance)
        commit = manifest_of(spec["release"])["commit"]
        # Asked of the server that runs: afterwards it may be stopped.
        words = tokens(instance)
        if not words:
            raise HostError(
                f"{instance['name']}: its engine does not count tokens, which prompts are made of"
            )
        began = time.time()
        with stopped(instance) if in_place else contextlib.nullcontext():
            runs = [
                one_run(spec, instance, number, words, began, place)
                for place, number in enumerate(spec["order"], 1)
            ]
        return {**facts(instance, in_place, began, commit), "runs": runs}


def refuse_beside(spec, instance):
    """Raises HostError unless memory holds each of the settings beside all servers."""
    for number in sorted(set(spec["order"])):
        short = shortages(spec, {**instance, "need": spec["servers"][number]["need"]})
        if short:
            raise HostError(
                f"{spec['host']}/{instance['name']}: no room beside the server: {'; '.join(short)}",
                "give --window, which stops the server meanwhile and starts it again",
            )


def one_run(spec, instance, number, words, began, place):
    """One run: its figures, or why the server did not serve, and the machine before and after."""
    say(f"run {place} of {len(spec['order'])}")
    server, at, before = spec["servers"][number], time.time(), moment(instance)
    found, error = None, ""
    try:
        found = measured(spec, instance, server, words)
    except InVainError:
        raise
    except HostError as fault:
        error = what_is_wrong(fault)[:MOST_CHARACTERS]
        say(error)
        if number == 0:
            raise HostError(
                f"its current settings do not serve in a run: {error}",
                f"`corral verify {spec['host']}/{instance['name']}` shows whether it serves",
            ) from fault
    return {
        "server": number,
        "at_seconds": round(at - began, 3),
        "seconds": round(time.time() - at, 3),
        "figures": found,
        "error": error,
        "before": before,
        "after": moment(instance),
    }


def measured(spec, instance, server, words):
    """The figures of a server. Raises HostError if it does not serve, or for a run in vain."""
    in_place = spec["where"] == "stop"
    document = {
        "argv": server["argv"],
        "key": (key := secrets.token_hex(32)),
        "key_document": engines.of(instance).key_document([key]),
        "ready_seconds": server["ready_seconds"],
        "tokens": words,
        **spec["requests"],
    }
    limit = server["ready_seconds"] + spec["limit_seconds"]
    limits = ("LimitNOFILE=65535", "TimeoutStopSec=20", f"RuntimeMaxSec={limit}")
    command = transient(
        {**instance, "environment": server["environment"]}, bench_unit(instance["name"]),
        job="tune",
        properties=(*limits, *server["properties"], *(() if in_place else BESIDE)),
        options=("--setenv=HOME=/tmp",),
    )  # fmt: skip
    code, printed, errors = listened([*command, *child()], json.dumps(document) + "\n")
    if in_place:
        refuse_started(instance, "others were measured in its place")
    found = [line for line in printed if line.startswith(tune_child.MARK)]
    if code == 0 and found:
        return json.loads(found[-1][len(tune_child.MARK) :])
    raise HostError(
        f"it did not serve within {limit} s, or failed ({code}). Its last lines:\n"
        f"{last([*printed, *errors])}"
    )


def child():
    """The program that starts the server and asks it, in the helper's own interpreter."""
    source = Path(tune_child.__file__)
    text = tune_child.__loader__.get_source(tune_child.__name__) or source.read_text()
    return [sys.executable, "-I", "-c", text]


def moment(instance):
    """The machine now: clocks and temperatures, by which a drift can be seen afterwards."""
    own = {str(gpu) for gpu in instance["gpus"]}
    rows = [row for row in figures()[0] if own & {row["index"], row["uuid"]}] if own else []
    return {
        "cpu_mhz": cpu_mhz(),
        "cpu_celsius": cpu_celsius(),
        "load": round(os.getloadavg()[0], 2),
        "gpus": [{name: row.get(name) for name in GPU_FIELDS} for row in rows],
    }


def cpu_mhz():
    """Mean clock of all processors; None where the kernel does not say."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    found = [float(line.partition(":")[2]) for line in lines if line.startswith(FREQUENCY)]
    return round(sum(found) / len(found)) if found else None


def cpu_celsius():
    """The highest temperature of the kernel's zones; None without any that can be read."""
    found = []
    for path in sorted(TEMPERATURES.glob("thermal_zone*/temp")):
        # A sensor that is switched off answers with an error.
        with contextlib.suppress(OSError, ValueError):
            found.append(int(path.read_text()) / 1000)
    return max(found, default=None)
