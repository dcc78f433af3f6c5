"""Ask the helper of a host: one function that reads whatever comes back, or says what is wrong."""

from __future__ import annotations

from typing import TypeVar

from pydantic import TypeAdapter

from corral.errors import CorralError
from corral.host.fault import read_fault
from corral.host.reading import UnreadableError, read_answer, unreadable
from corral.inventory.hosts import Host
from corral.remote.bounded import Ended, SilentError, TooMuchError, run_within
from corral.remote.root import refused
from corral.remote.ssh import ssh_command
from corral.remote.unreached import UnreachedError, unreached

# ssh(1) has no other exit code for its own failures.
SSH_FAILED = 255
# A host that accepts and then says nothing is given up after so long, by the kind of question.
# Keepalives of ssh do not help: its daemon answers them.
_SECONDS = 120
_LONGER_SECONDS = {
    "state": 300, "instances": 300, "gpus": 300, "check": 900, "releases": 900, "prune": 1800,
    "rehash": 24 * 3600,
}  # fmt: skip

__all__ = ["UnreachedError", "ask_helper"]

T = TypeVar("T")


def ask_helper(
    host: Host,
    words: list[str],
    sent: str,
    shape: TypeAdapter[T],
    *,
    command: str,
    seconds: float | None = None,
    otherwise: str = "",
    secret: bool = False,
) -> T:
    """Run ``words`` on a host and give its answer, checked. Raises CorralError of that host.

    + sent: its standard input; + command: of the helper, which says how long it may take
    + seconds: where that depends on more; + otherwise: the next step where the helper names none
    + secret: no message shows what came
    Raises UnreachedError when the connection failed, or nothing came in time.
    """
    limit = seconds or _LONGER_SECONDS.get(command, _SECONDS)
    ended = _run(host, words, sent, limit)
    out, said = ended.out.decode(errors="replace"), ended.err.decode(errors="replace").strip()
    if ended.code == SSH_FAILED:
        raise unreached(host, said)
    if ended.code != 0 and (error := refused(host, said)):
        raise error
    if ended.code != 0:
        found = read_fault(out, said or f"exit code {ended.code}")
        raise found.error(host.name, otherwise)
    try:
        return read_answer(shape, out)
    except UnreadableError as error:
        if secret:
            hidden = UnreadableError("it holds secrets, and is not shown")
            raise unreadable(host.name, hidden) from None
        raise unreadable(host.name, error) from error


def _run(host: Host, words: list[str], sent: str, seconds: float) -> Ended:
    try:
        return run_within(ssh_command(host, words), sent.encode(), seconds=seconds)
    except SilentError as error:
        raise unreached(host, str(error)) from error
    except TooMuchError as error:
        raise CorralError(host.name, str(error), "look at what answers there") from error
    except OSError as error:
        step = f"see that `{ssh_command(host, [])[0]}` can be run here"
        raise CorralError(host.name, str(error), step) from error
