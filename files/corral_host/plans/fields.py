"""Fields of an instance's plan. Plans that an earlier version staged on this host lack some.

For such a plan a field is derived as that version did: from the staged arguments and unit.
"""

import shlex
from pathlib import Path


def release_folder(plan):
    """Folder of the engine release that the instance runs."""
    return Path(plan.get("release_folder") or Path(plan["argv"][0]).parent.parent)


def engine(plan):
    return plan.get("engine") or release_folder(plan).parent.name


def weights_mapped(plan):
    """Whether the weights are mapped from their files, so the kernel may drop them from memory."""
    if "weights_mapped" in plan:
        return plan["weights_mapped"]
    argv = plan["argv"]
    if "--load-mode" in argv:
        return argv[argv.index("--load-mode") + 1] == "mmap"
    return not {"--no-mmap", "--mlock"} & set(argv)


def drafts_tokens(plan):
    """Whether it drafts tokens, which needs a KV cache and compute buffers of its own."""
    return plan.get("drafts_tokens", "--spec-type" in plan["argv"])


def environment(plan):
    """Name -> value of the variables that its unit sets."""
    if "environment" in plan:
        return plan["environment"]
    unit = Path(plan["folder"]) / "generations" / plan["generation"] / "unit"
    lines = unit.read_text().splitlines()
    given = [line.partition("=")[2] for line in lines if line.startswith("Environment=")]
    pairs = [pair.partition("=") for line in given for pair in shlex.split(line)]
    return {name: value for name, _, value in pairs}


def limit_seconds(plan, how):
    """Time limit of an activation with its revert; None if the plan has none."""
    name = "side_by_side_limit_seconds" if how == "side by side" else "limit_seconds"
    return plan["activation"].get(name) or None
