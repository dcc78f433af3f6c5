"""llama-fit-params of an engine release: counts the memory that an instance needs.

Rows are ``DEVICE WEIGHTS CONTEXT COMPUTE`` in MiB, rounded down; devices are CUDA0, CUDA1, ... of
the visible GPUs, and Host (common/fit.cpp of llama.cpp at 0c1e57098bba).
"""

import re
import resource
import subprocess

from corral_host.system.commands import PROGRAMS, HostError

LIMIT_SECONDS = 120
ROW = re.compile(r"^(CUDA\d+|Host) (\d+) (\d+) (\d+) ?$", re.MULTILINE)
PARTS = ("weights_mib", "kv_mib", "compute_mib")
# An abort may cut its log short, as another thread writes it: 4 of 30 times here, more under load.
TRIES = 8
# Lines of its log that say what is wrong; others say where.
ERROR = " E "
REASON = re.compile(rf"{ERROR}|error|what\(\)")
REASON_LINES = 4


def ask(instance, model):
    """MiB by device and part, for the instance's arguments with the path of ``model``."""
    first = instance["shards"][0]
    argv = [str(model) if one == first else one for one in instance["fit_argv"]]
    for _ in range(TRIES):
        done = run(argv, environment(instance, model.parent))
        if done.returncode == 0 or ERROR in done.stderr:
            break
    rows = {row[0]: dict(zip(PARTS, map(int, row[1:]))) for row in ROW.findall(done.stdout)}
    if done.returncode != 0 or "Host" not in rows:
        raise HostError(f"llama-fit-params failed ({done.returncode}): {reason(done.stderr)}")
    return rows


def run(argv, environment):
    # It aborts on a model that it cannot load.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        return subprocess.run(
            ["nice", "-n", "10", *argv],
            capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL,
            env=environment, timeout=LIMIT_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise HostError(f"llama-fit-params did not end within {LIMIT_SECONDS} s") from error


def environment(instance, home):
    """A minimal environment: LLAMA_ARG_* or a configuration file at home would change the count."""
    return {
        "PATH": PROGRAMS,
        "HOME": str(home),
        "LC_ALL": "C",
        "GGML_NO_BACKTRACE": "1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, instance["gpus"])),
    }


def reason(log):
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    reasons = [line for line in lines if REASON.search(line)]
    return " | ".join((reasons or lines or ["no output"])[-REASON_LINES:])
