"""Run any command on a host with this terminal, and work on many hosts at once."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TypeVar

from corral.inventory.hosts import Host
from corral.remote.root import root_refused
from corral.remote.ssh import not_runnable, ssh_command
from corral.remote.transport import SSH_FAILED
from corral.remote.unreached import unreached
from corral.terminal import HeldOutput, copy_output, echo

T = TypeVar("T")
R = TypeVar("R")


# The first line of standard error that is not from ssh(1) or sudo. Output before it is the reason
# why the command did not start. A login that is not root would see half a journal, without a hint.
_BEGUN = "corral: begun"
_BEGIN = (
    "sh", "-c",
    'if test "$(id -u)" != 0; then echo "the login is not root, but user $(id -un)" >&2; exit 1; '
    f'fi; echo "{_BEGUN}" >&2; exec "$0" "$@"',
)  # fmt: skip


def run_on(host: Host, command: list[str]) -> int:
    """Run a command on a host with this terminal's input; its output is printed at once.

    Returns its exit code. Raises CorralError when it did not start.
    """
    argv = ssh_command(host, [*_BEGIN, *command])
    held = HeldOutput(_BEGUN)
    try:
        started = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as error:
        raise not_runnable(host, error) from error
    with started as process:
        printers = [
            threading.Thread(target=_print, args=(process, pipe, held_output), daemon=True)
            for pipe, held_output in ((process.stdout, None), (process.stderr, held))
            if pipe
        ]
        for printer in printers:
            printer.start()
        for printer in printers:
            printer.join()
    if held.waits and process.returncode:
        _refuse(host, held.text, process.returncode)
    if held.waits and held.text:
        echo(held.text, err=True)
    return process.returncode


def _refuse(host: Host, output: str, code: int) -> None:
    """Raises CorralError where it is known why a command did not start."""
    if code == SSH_FAILED:
        raise unreached(host, output)
    if error := root_refused(host, output):
        raise error


def _print(process: subprocess.Popen[bytes], pipe: IO[bytes], held: HeldOutput | None) -> None:
    try:
        copy_output(pipe, err=held is not None, held=held)
    except BrokenPipeError:
        process.terminate()  # as after `corral logs | head`


def on_all(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Run ``work`` on many items in parallel; results are in the order of ``items``."""
    with ThreadPoolExecutor(max_workers=20) as pool:
        return list(pool.map(work, items))
