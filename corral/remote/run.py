"""Run any command on a host with this terminal, and work on many hosts at once."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TypeVar

from corral.inventory.hosts import Host
from corral.remote.root import refused
from corral.remote.ssh import ssh_command
from corral.remote.transport import SSH_FAILED
from corral.remote.unreached import unreached
from corral.terminal import HeldOutput, copy_output, say

T = TypeVar("T")
R = TypeVar("R")


# The first line of standard error that is not of ssh(1) or sudo: until it comes the command has not
# begun, and what is said is why. Who is not root would see half a journal, without a word.
_BEGUN = "corral: begun"
_BEGIN = (
    "sh", "-c",
    'if test "$(id -u)" != 0; then echo "the login is not root, but user $(id -un)" >&2; exit 1; '
    f'fi; echo "{_BEGUN}" >&2; exec "$0" "$@"',
)  # fmt: skip


def run_on(host: Host, words: list[str]) -> int:
    """Run a command on a host with this terminal's input; what it says is printed as it comes.

    Gives its exit code. Raises CorralError when it was not even begun.
    """
    command = ssh_command(host, [*_BEGIN, *words])
    held = HeldOutput(_BEGUN)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        printers = [
            threading.Thread(target=_print, args=(process, pipe, before), daemon=True)
            for pipe, before in ((process.stdout, None), (process.stderr, held))
            if pipe
        ]
        for printer in printers:
            printer.start()
        for printer in printers:
            printer.join()
    if held.waits and process.returncode:
        _refuse(host, held.text, process.returncode)
    if held.waits and held.text:
        say(held.text, err=True)
    return process.returncode


def _refuse(host: Host, said: str, code: int) -> None:
    """Raises CorralError where it is known why a command was not begun."""
    if code == SSH_FAILED:
        raise unreached(host, said)
    if error := refused(host, said):
        raise error


def _print(process: subprocess.Popen[bytes], pipe: IO[bytes], before: HeldOutput | None) -> None:
    try:
        copy_output(pipe, err=before is not None, held=before)
    except BrokenPipeError:
        process.terminate()  # as `corral logs | head` has what it wants


def on_all(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Do the same for many hosts at a time, answers in the order of ``items``."""
    with ThreadPoolExecutor(max_workers=20) as pool:
        return list(pool.map(work, items))
