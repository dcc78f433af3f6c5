"""Fields of an instance's plan; plans that an earlier version left on this host lack some.

Such a plan is read as that version read it: from the arguments and the unit that it staged.
"""

import shlex
from pathlib import Path


def release_folder(plan):
    """Of the engine release that it runs."""
    return Path(plan.get("release_folder") or Path(plan["argv"][0]).parent.parent)


def engine(plan):
    return plan.get("engine") or release_folder(plan).parent.name


def weights_mapped(plan):
    """Whether the weights are mapped from their files, and may leave memory again."""
    if "weights_mapped" in plan:
        return plan["weights_mapped"]
    argv = plan["argv"]
    if "--load-mode" in argv:
        return argv[argv.index("--load-mode") + 1] == "mmap"
    return not {"--no-mmap", "--mlock"} & set(argv)


def drafts_tokens(plan):
    """Whether it has KV cache and compute buffers beside those of the model that it serves."""
    return plan.get("drafts_tokens", "--spec-type" in plan["argv"])


def environment(plan):
    """Name -> value of the variables that its unit sets, as they stand there."""
    if "environment" in plan:
        return plan["environment"]
    unit = Path(plan["folder"]) / "generations" / plan["generation"] / "unit"
    lines = unit.read_text().splitlines()
    given = [line.partition("=")[2] for line in lines if line.startswith("Environment=")]
    pairs = [pair.partition("=") for words in given for pair in shlex.split(words)]
    return {name: value for name, _, value in pairs}


def limit_seconds(plan, how):
    """Longer than all that an activation and its revert may take; None: the plan does not say."""
    name = "side_by_side_limit_seconds" if how == "side by side" else "limit_seconds"
    return plan["activation"].get(name) or None
