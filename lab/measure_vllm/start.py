"""Start ``vllm serve`` as a unit would: no writable and executable memory, no new privileges.

    python -m lab.measure_vllm.start [--user ID] [--imported-before] -- serve MODEL ...

With ``--imported-before`` it imports vLLM, says "imported" and waits for a line on standard input:
the next server imports while the one before it is measured. Then vLLM's processes are forks of
this one, and its figures in GiB have six digits after the point in place of two.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import os
import sys

_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_MDWE, _PR_GET_MDWE = 65, 66
_PR_MDWE_REFUSE_EXEC_GAIN = 1
_GIB = 1 << 30
_MODULES = (
    "vllm.entrypoints.cli.main",
    "vllm.entrypoints.openai.api_server",
    "vllm.v1.engine.async_llm",
    "vllm.v1.engine.core",
    "vllm.v1.worker.gpu_worker",
    "vllm.model_executor.models.glm4_moe",
    "vllm.model_executor.models.glm4_moe_mtp",
    "vllm.model_executor.models.glm4_moe_lite",
    "vllm.model_executor.models.glm4_moe_lite_mtp",
)


def main() -> None:
    """Restrict this process, import if asked to, and become ``vllm``."""
    place = sys.argv.index("--")
    parser = argparse.ArgumentParser()
    parser.add_argument("--user", type=int)
    parser.add_argument("--imported-before", action="store_true")
    parser.add_argument("--writable-code", action="store_true")
    options = parser.parse_args(sys.argv[1:place])
    _restrict(options.user, writable_code=options.writable_code)
    if options.imported_before:
        _import_vllm()
        sys.stdout.write("imported\n")
        sys.stdout.flush()
        if not sys.stdin.readline():
            return
    sys.argv = ["vllm", *sys.argv[place + 1 :]]
    importlib.import_module("vllm.entrypoints.cli.main").main()


def _restrict(user: int | None, *, writable_code: bool) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
    if not writable_code and libc.prctl(_PR_SET_MDWE, _PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_MDWE")
    mdwe = libc.prctl(_PR_GET_MDWE, 0, 0, 0, 0)
    print(f"restricted: user {os.getuid()}, MDWE {mdwe}", flush=True)


def _import_vllm() -> None:
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
    memory = importlib.import_module("vllm.utils.mem_utils")
    vars(memory)["format_gib"] = lambda size: f"{size / _GIB:.6f}"
    for name in _MODULES:
        importlib.import_module(name)


if __name__ == "__main__":
    main()
