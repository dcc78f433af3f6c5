"""Reach hosts with the system's ssh: with a helper that travels, or any command."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TypeVar

from pydantic import TypeAdapter

from corral.asking import ask_helper
from corral.helper import BOOTSTRAP, encoded
from corral.inventory import Host
from corral.project import helper_package, project_root
from corral.ssh import ssh_command
from corral.terminal import pass_on

T = TypeVar("T")
R = TypeVar("R")


def call_helper(
    host: Host,
    command: str,
    document: str,
    shape: TypeAdapter[T],
    *,
    seconds: float | None = None,
    secret: bool = False,
) -> T:
    """Run the helper of this checkout on a host and give its answer. Raises CorralError.

    The helper travels on standard input: a host with an older one, or none, answers as well.
    + document: JSON, which follows it there; + seconds: for the answer, where the usual is not it
    + secret: no message shows what came
    """
    return ask_helper(
        host,
        ["python3", "-I", "-c", BOOTSTRAP, command],
        f"{encoded(helper_package(project_root()))}\n{document}",
        shape,
        command=command,
        seconds=seconds,
        secret=secret,
        otherwise=f"see that `ssh {host.name}` works, or deploy the host",
    )


def run_on(host: Host, words: list[str]) -> int:
    """Run a command on a host with this terminal's input; what it says is printed as it comes.

    Gives its exit code.
    """
    command = ssh_command(host, words)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        printers = [
            threading.Thread(target=_print, args=(process, pipe, err), daemon=True)
            for pipe, err in ((process.stdout, False), (process.stderr, True))
            if pipe
        ]
        for printer in printers:
            printer.start()
        for printer in printers:
            printer.join()
    return process.returncode


def _print(process: subprocess.Popen[bytes], pipe: IO[bytes], err: bool) -> None:
    try:
        pass_on(pipe, err=err)
    except BrokenPipeError:
        process.terminate()  # as `corral logs | head` has what it wants


def on_all(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Do the same for many hosts at a time, answers in the order of ``items``."""
    with ThreadPoolExecutor(max_workers=20) as pool:
        return list(pool.map(work, items))
