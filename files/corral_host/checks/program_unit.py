"""Run a benchmark program in a unit of its own, with the variables of the server's unit."""

import contextlib
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from corral_host.fit.memory import find
from corral_host.nvidia import nvidia_smi
from corral_host.plans.fields import environment
from corral_host.system.commands import TAIL_LINES, HostError, say, show

# Properties of a measuring unit. ik_llama.cpp writes a log to its working folder if it can.
PROPERTIES = (
    "DynamicUser=yes", "NoNewPrivileges=yes", "ProtectHome=yes", "PrivateNetwork=yes",
    "CapabilityBoundingSet=", "WorkingDirectory=/tmp", "LimitMEMLOCK=infinity", "LimitCORE=0",
    "OOMScoreAdjust=800",
)  # fmt: skip
# Lower priority than the server beside it.
BESIDE = ("Nice=10", "CPUWeight=20", "IOWeight=20")
AWAY = ("inactive", "failed")
# A specifier of systemd: such a variable names a folder of the server's own user.
NOT_PASSED = "%"
# llama.cpp's programs log from a thread of its own and do not wait for it (common/log.cpp
# at 0c1e57098bba says so): on a busy machine 7 of 150 runs of llama-batched-bench lost a result.
TRIES = 4


class InVainError(HostError):
    """Something happened that makes the figures of all runs useless."""


def bench_unit(name):
    return f"corral-bench-{name}.service"


def measure(spec, instance, command):
    """Run a command of a spec; returns its lines of JSON, one list for each repetition."""
    program = Path(command["argv"][0]).name
    runs = []
    for number in range(1, command["repeat"] + 1):
        say(f"{program}, run {number} of {command['repeat']}")
        runs.append(whole_run(spec, instance, command))
    return runs


def whole_run(spec, instance, command):
    """Lines of JSON of one run; repeated if the program prints fewer than expected."""
    program, awaited = Path(command["argv"][0]).name, command["lines"]
    for _ in range(TRIES):
        lines = run_program(spec, instance, command["argv"])
        found = [line for line in lines if line.startswith("{")]
        if len(found) >= awaited:
            return found
        say(f"{program} printed {len(found)} of {awaited} results")
    raise HostError(
        f"{program} ended {TRIES} times without its results, {len(found)} of {awaited} at last:\n"
        f"{last(lines)}"
    )


def run_program(spec, instance, argv):
    """Lines of a program's output, standard error last."""
    in_place = spec["where"] == "stop"
    properties = (*spec["properties"], *(() if in_place else BESIDE))
    unit = transient(instance, bench_unit(instance["name"]), job="bench", properties=properties)
    code, printed, errors = listened([*unit, *argv])
    lines = [*printed, *errors]
    if in_place:
        refuse_started(instance, "it was measured")
    if code != 0:
        raise HostError(
            f"{Path(argv[0]).name} failed with exit code {code}. Its last lines:\n{last(lines)}"
        )
    return lines


def refuse_started(instance, meanwhile):
    """Raises InVainError if a server that was stopped for measurements has been started."""
    if show(instance["unit"], "ActiveState")["ActiveState"] not in AWAY:
        raise InVainError(
            f"{instance['name']} was started while {meanwhile}, so the figures are useless",
            "ask again while nobody starts or deploys it",
        )


def listened(command, document=""):
    """Exit code of a command, and its lines of either stream; each line is logged at once.

    The streams are read separately: standard output comes in blocks, which would cut lines of both.
    ``document``: its standard input.
    """
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, errors="replace",
    ) as program, ThreadPoolExecutor(max_workers=2) as pool:  # fmt: skip
        # One that ends at once does not read it.
        with contextlib.suppress(BrokenPipeError):
            program.stdin.write(document)
            program.stdin.close()
        printed, errors = pool.map(listen, (program.stdout, program.stderr))
    return program.returncode, printed, errors


def listen(stream):
    lines = []
    for line in stream:
        say(line.rstrip())
        lines.append(line.rstrip())
    return lines


def last(lines):
    found = [line for line in lines if line and not line.startswith("{")]
    return "\n".join(found[-TAIL_LINES:])


def transient(instance, unit, *, job="", properties=(), options=()):
    """Command line of a transient unit with the server's variables.

    ``job``: kind of the job with which the unit ends; ``properties``: more of the unit, of which
    the last of a name counts; ``options``: more of systemd-run.
    """
    end = f"corral-job-{job}-{instance['name']}.service"
    bound = (f"BindsTo={end}", f"After={end}") if job else ()
    chosen = dict(value.split("=", 1) for value in (*PROPERTIES, *bound, *properties))
    own = [f"--property={name}={value}" for name, value in chosen.items()]
    fixed = ("--pipe", "--wait", "--collect", "--quiet", f"--unit={unit}")
    return ["systemd-run", *fixed, *own, *settings(instance), *options, "--"]


def settings(instance):
    """Options of systemd-run that set the variables of the instance's server."""
    variables = environment(instance).items()
    return [f"--setenv={name}={value}" for name, value in variables if NOT_PASSED not in value]


def cpu_name():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else os.uname().machine


def gpu_names(instance):
    if not instance["gpus"]:
        return []
    smi = nvidia_smi.ask()
    found = [find(gpu, smi) for gpu in instance["gpus"]]
    return [gpu["name"] if gpu and gpu["name"] else "unknown" for gpu in found]
