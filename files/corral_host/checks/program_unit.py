"""Run a benchmark program in a unit of its own, with the variables of the server's unit."""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from corral_host.fit.memory import find
from corral_host.nvidia import nvidia_smi
from corral_host.plans.fields import environment
from corral_host.system.commands import TAIL_LINES, HostError, say, show

# Of a unit that measures; where a folder can be written, ik_llama.cpp leaves its log.
PROPERTIES = (
    "DynamicUser=yes", "NoNewPrivileges=yes", "ProtectHome=yes", "PrivateNetwork=yes",
    "CapabilityBoundingSet=", "WorkingDirectory=/tmp", "LimitMEMLOCK=infinity", "LimitCORE=0",
    "OOMScoreAdjust=800",
)  # fmt: skip
# The server beside it goes first.
BESIDE = ("Nice=10", "CPUWeight=20", "IOWeight=20")
AWAY = ("inactive", "failed")
# A folder of the server's own user.
NOT_OURS = "CUDA_CACHE_PATH"
# llama.cpp's programs log from a thread of its own and do not wait for it (common/log.cpp
# at 0c1e57098bba says so): on a busy machine 7 of 150 runs of llama-batched-bench lost a result.
TRIES = 4


def bench_unit(name):
    return f"corral-bench-{name}.service"


def measure(instance, command, in_place):
    """Lines of JSON, one list for each repetition."""
    program = Path(command["argv"][0]).name
    runs = []
    for number in range(1, command["repeat"] + 1):
        say(f"{program}, run {number} of {command['repeat']}")
        runs.append(whole_run(instance, command, in_place))
    return runs


def whole_run(instance, command, in_place):
    """Lines of JSON, as many as the command is to print at least."""
    program, awaited = Path(command["argv"][0]).name, command["lines"]
    for _ in range(TRIES):
        lines = run_program(instance, command["argv"], in_place)
        found = [line for line in lines if line.startswith("{")]
        if len(found) >= awaited:
            return found
        say(f"{program} printed {len(found)} of {awaited} results")
    raise HostError(
        f"{program} ended {TRIES} times without its results, {len(found)} of {awaited} at last:\n"
        f"{last(lines)}"
    )


def run_program(instance, argv, in_place):
    """All that a program says, its errors last; each line also goes to the log as it comes.

    Each stream by itself: standard output comes in blocks, which cut lines of both in two.
    """
    with subprocess.Popen(
        [*transient(instance, in_place), *argv],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
    ) as program, ThreadPoolExecutor(max_workers=2) as pool:  # fmt: skip
        said, told = pool.map(listen, (program.stdout, program.stderr))
    lines = [*said, *told]
    if in_place and show(instance["unit"], "ActiveState")["ActiveState"] not in AWAY:
        raise HostError(
            f"{instance['name']} was started while it was measured, so the figures are of no use",
            "ask again while nobody starts or deploys it",
        )
    if program.returncode != 0:
        raise HostError(
            f"{Path(argv[0]).name} failed with exit code {program.returncode}. "
            f"Its last lines:\n{last(lines)}"
        )
    return lines


def listen(stream):
    lines = []
    for line in stream:
        say(line.rstrip())
        lines.append(line.rstrip())
    return lines


def last(lines):
    told = [line for line in lines if line and not line.startswith("{")]
    return "\n".join(told[-TAIL_LINES:])


def transient(instance, in_place):
    """A unit of its own, with the server's variables; it ends with the job that waits for it."""
    job = f"corral-job-bench-{instance['name']}.service"
    properties = [*PROPERTIES, f"BindsTo={job}", f"After={job}", *(() if in_place else BESIDE)]
    words = [f"--property={value}" for value in properties]
    words += settings(instance)
    unit = f"--unit={bench_unit(instance['name'])}"
    return ["systemd-run", "--pipe", "--wait", "--collect", unit, *words, "--"]


def settings(instance):
    """Options of systemd-run: the variables of the instance's server."""
    variables = environment(instance).items()
    return [f"--setenv={name}={value}" for name, value in variables if name != NOT_OURS]


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
