"""A connection that holds a host's rollout lock until it ends."""

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
from corral.remote.root import root_refused
from corral.remote.ssh import ssh_command
from corral.remote.transport import SSH_FAILED
from corral.remote.unreached import unreached

# Time for the host to confirm or refuse the lock, and to release it.
ANSWER_SECONDS = 60
_END_SECONDS = 10
_MOST_BYTES = 64 * 1024
_CHUNK_BYTES = 4096


# Exit codes of python3 for a missing file, and of a shell without python3.
_NO_HELPER = (2, 127)


class NoHelperError(CorralError):
    """The host has no helper yet, so no lock can be held, and nothing needs one."""


class Lease:
    """The helper's `hold`, while this connection lasts and sends heartbeats.

    + helper: path of the installed helper; + document: the operator and the rollout

    The constructor takes the lock. Raises CorralError of the host when it cannot.
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
        """Whether the connection still exists."""
        return self._process.poll() is None

    def send(self, line: str) -> None:
        """Send a line to the host; ``lasts`` notices a cut link."""
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError, ValueError):
                self._process.stdin.write(f"{line}\n".encode())

    def close(self, patience_seconds: float | None = None) -> None:
        """Release the lock; a connection that does not end by itself is killed."""
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
        """Read until a line confirms the lock. Raises CorralError."""
        deadline, output = time.monotonic() + ANSWER_SECONDS, b""
        while block := self._read(host, deadline):
            output += block
            if any(_confirms(line) for line in output.split(b"\n")):
                return
            if len(output) > _MOST_BYTES:
                what = "prints too much instead of taking its lock"
                raise CorralError(host.name, what, "check what answers there")
        code = self._process.wait()
        text = output.decode(errors="replace").strip()
        if code == SSH_FAILED:
            raise unreached(host, text)
        if error := root_refused(host, text):
            raise error
        if code in _NO_HELPER:
            raise NoHelperError(host.name, text, f"deploy {host.name}")
        # Both streams are merged: the answer is the last line, after messages for people.
        raise read_fault(text, text or f"the lock was not taken ({code})").error(host.name)

    def _read(self, host: Host, deadline: float) -> bytes:
        """More output; empty at its end. Raises UnreachedError after the deadline."""
        stdout = self._process.stdout
        if stdout is None:
            return b""
        with selectors.DefaultSelector() as watched:
            watched.register(stdout, selectors.EVENT_READ)
            if watched.select(max(deadline - time.monotonic(), 0)):
                return os.read(stdout.fileno(), _CHUNK_BYTES)
        raise unreached(host, f"no answer within {ANSWER_SECONDS} s")


def _confirms(line: bytes) -> bool:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("held") is True
