"""Why vLLM ended, from its log: its own errors, and what to change for each.

The texts are those of 0.32.0; 0.24.0 and 0.33.0 have the same.
"""

import re

# Before a line of one of its processes: ``(EngineCore pid=7) ERROR 11-29 21:02:14 [x.py:1] ``.
PREFIX = re.compile(r"^(\(\w[^)]* pid=\d+\) )?([A-Z]+ \d\d-\d\d [\d:]+ \[[^\]]*\] ?)?")
ERROR = re.compile(r"^(?:[\w.]+\.)?(\w*(?:Error|Exception|Interrupt)): +(\S.*)$")
# Errors of a process whose cause is in the log of another one, before them.
OUTCOMES = ("Engine core initialization failed", "WorkerProc initialization failed")
SHORTER = "lower context_tokens_per_slot in the profile"
SHOWN_CHARACTERS = 400

# Pattern -> what is wrong and the next step, in which {0}, {1}, ... are the groups of the match.
REASONS = (
    (
        r"\[Errno 98\]",
        "its port is in use by another program",
        "on the host, find out which (`ss -tlnp`) and stop it, or give the instance another port",
    ),
    (
        r"User-specified max_model_len \((\d+)\) is greater than the derived max_model_len "
        r"\((?:\w+=)?(\d+)",
        "a length of {0} tokens is more than the model's own of {1}",
        f"{SHORTER} to {{1}} or less",
    ),
    (
        r"max seq len \((\d+)\), \(?([\d.]+) GiB KV cache is needed, which is larger than the "
        r"available KV cache memory \(([\d.]+) GiB\)\. Based on the available memory, the "
        r"estimated maximum model length is (\d+)",
        "one request of {0} tokens needs {1} GiB of KV cache and {2} GiB are there; vLLM estimates "
        "that {3} tokens fit",
        f"{SHORTER} to {{3}} or less, or give the server more memory (gpu_memory_utilization, more "
        "GPUs, a smaller KV cache type)",
    ),
    (
        r"max seq len \((\d+)\), \(?([\d.]+) GiB KV cache is needed, which is larger than the "
        r"available KV cache memory \(([\d.]+) GiB\)",
        "one request of {0} tokens needs {1} GiB of KV cache and {2} GiB are there",
        f"{SHORTER}, or give the server more memory (gpu_memory_utilization, more GPUs)",
    ),
    (
        r"No available memory for the cache blocks",
        "the weights leave no memory for the KV cache",
        "raise gpu_memory_utilization, lower batch_tokens, or give the instance more GPUs",
    ),
    (
        r"(?:Free memory on device|Available memory on node) (\S+) \(([\d.]+)/([\d.]+) GiB\) on "
        r"startup is less than desired [CG]PU memory utilization \(([\d.]+), ([\d.]+) GiB\)",
        "{1} of {2} GiB are free on device {0}, and a utilization of {3} wants {4} GiB",
        "stop what else uses that memory (`nvidia-smi`), or lower gpu_memory_utilization",
    ),
    (
        r"OutOfMemoryError: (.*)",
        "out of GPU memory: {0}",
        "lower gpu_memory_utilization, batch_tokens or slots, or stop what else uses the GPU",
    ),
    (
        r"error: (?:unrecognized arguments: (.*)|(argument .*))",
        "this release does not take its arguments: {0}{1}",
        "remove that from extra_flags in the profile, or choose an engine that has it",
    ),
    (
        r"EngineDeadError|Engine core proc \S+ died unexpectedly|Engine core process .* died"
        r"|WorkerProc hit an exception|Worker proc .* died unexpectedly",
        "a process of its engine ended",
        "on the host, `journalctl -k` says whether the kernel killed it; its unit's log has the "
        "rest",
    ),
)  # fmt: skip


def why_it_ended(log):
    """What is wrong and the next step; None if the log has no error."""
    lines = [PREFIX.sub("", line) for line in log.splitlines()]
    for pattern, what, next_step in REASONS:
        for line in lines:
            if found := re.search(pattern, line):
                groups = [group or "" for group in found.groups()]
                return what.format(*groups)[:SHOWN_CHARACTERS], next_step.format(*groups)
    errors = [line for line in lines if ERROR.match(line) and not is_outcome(line)]
    if not errors:
        return None
    # Imports may log errors of what is optional, so the last one counts.
    return errors[-1][:SHOWN_CHARACTERS], "see its unit's log on the host (`corral logs`)"


def is_outcome(line):
    return any(text in line for text in OUTCOMES)
