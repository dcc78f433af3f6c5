"""A connection that holds a host's rollout lock for as long as it lasts."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import time

from corral.errors import CorralError
from corral.host.fault import read_fault
from corral.inventory.hosts import Host
from corral.remote.root import refused
from corral.remote.ssh import ssh_command
from corral.remote.transport import SSH_FAILED
from corral.remote.unreached import unreached

# Until the host says that it is held, or why not; the same to let go.
ANSWER_SECONDS = 60
_END_SECONDS = 10
_MOST_BYTES = 64 * 1024
_CHUNK_BYTES = 4096


# Of python3 for a file that is not there, and of a shell without python3.
_NO_HELPER = (2, 127)


class NoHelperError(CorralError):
    """Nothing of Corral's is on a host yet: no lock can be held, and there is nothing to keep."""


class Lease:
    """The helper's `hold`, for as long as this connection lasts and gives signs of life.

    + helper: path of the installed one; + document: who holds, for which rollout

    Taken when it is made. Raises CorralError of the host when it cannot be.
    """

    def __init__(self, host: Host, helper: str, document: str) -> None:
        self._process = subprocess.Popen(
            ssh_command(host, ["python3", "-I", helper, "hold"]), bufsize=0,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            self.send(document)
            self._await(host)
        except BaseException:
            self.close(patience_seconds=0)
            raise

    def lasts(self) -> bool:
        """Whether the connection is still there."""
        return self._process.poll() is None

    def send(self, line: str) -> None:
        """A line to the host; a cut link is noticed by ``lasts``."""
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError, ValueError):
                self._process.stdin.write(f"{line}\n".encode())

    def close(self, patience_seconds: float | None = None) -> None:
        """Let go; a link that does not end by itself is cut."""
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(_END_SECONDS if patience_seconds is None else patience_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def _await(self, host: Host) -> None:
        """Read until a line says that it is held. Raises CorralError."""
        deadline, said = time.monotonic() + ANSWER_SECONDS, b""
        while block := self._heard(host, deadline):
            said += block
            if any(_says_held(line) for line in said.split(b"\n")):
                return
            if len(said) > _MOST_BYTES:
                what = "says too much in place of holding its lock"
                raise CorralError(host.name, what, "look at what answers there")
        code = self._process.wait()
        text = said.decode(errors="replace").strip()
        if code == SSH_FAILED:
            raise unreached(host, text)
        if error := refused(host, text):
            raise error
        if code in _NO_HELPER:
            raise NoHelperError(host.name, text, f"deploy {host.name}")
        # Both streams come as one: the answer is its last line, what is for people before it.
        raise read_fault(text, text or f"the lock was not taken ({code})").error(host.name)

    def _heard(self, host: Host, deadline: float) -> bytes:
        """Some more bytes; none at the end. Raises UnreachedError after the deadline."""
        stdout = self._process.stdout
        if stdout is None:
            return b""
        with selectors.DefaultSelector() as watched:
            watched.register(stdout, selectors.EVENT_READ)
            if watched.select(max(deadline - time.monotonic(), 0)):
                return os.read(stdout.fileno(), _CHUNK_BYTES)
        raise unreached(host, f"no answer within {ANSWER_SECONDS} s")


def _says_held(line: bytes) -> bool:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("held") is True
