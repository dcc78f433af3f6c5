"""Perplexity of a generation's weights on its reference text, by the release's own program.

Measured before the server starts, as memory would not hold the weights twice.
"""

import os
import subprocess
from pathlib import Path

from corral_host import engines
from corral_host.checks.program_unit import TRIES, last, transient
from corral_host.instance.gate_rows import gate_plan, row
from corral_host.system.commands import HostError, say

# Limit for reading the text, beyond the time to load.
READING_SECONDS = 1800


def perplexity(instance):
    """The row of the probe. Raises HostError if there is no estimate."""
    plan = gate_plan(instance)["perplexity"]
    value, error = estimate(instance, plan)
    # NaN is not below the limit, so it fails.
    ok = float(value) <= plan["limit"]
    return row("perplexity", ok, f"{value} +/- {error} on {plan['text']}", f"{plan['limit']:g}")


def estimate(instance, plan):
    """Estimate and error; runs again if the program read the text, but its last output was lost."""
    engine, program = engines.of(instance), Path(plan["argv"][0]).name
    for _ in range(TRIES):
        text = measured(instance, plan)
        if found := engine.perplexity(text):
            return found
        if not engine.read_text(text):
            break
        say(f"{program} read the text and printed no estimate")
    raise HostError(f"{program} gave no estimate:\n{last(text.splitlines())}")


def measured(instance, plan):
    program = plan["argv"][0]
    for path in (program, plan["text_path"]):
        if not os.access(path, os.R_OK):
            raise HostError(f"{path} is missing", "deploy the host again, which puts it there")
    seconds = instance["ready_timeout_seconds"] + READING_SECONDS
    unit = transient(
        instance, f"corral-perplexity-{instance['name']}.service", job="activate",
        properties=(f"RuntimeMaxSec={seconds}",),
    )  # fmt: skip
    done = subprocess.run(
        [*unit, *plan["argv"]],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise HostError(
            f"{Path(program).name} failed with exit code {done.returncode}, within {seconds} s. "
            f"Its last lines:\n{last(done.stdout.splitlines())}"
        )
    return done.stdout
