"""A connection that holds a lock on a host until it ends: of a rollout, or of a load test."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import time
from collections.abc import Callable
from typing import Any

from corral.errors import CorralError
from corral.host.fault import read_fault
from corral.inventory.hosts import Host
from corral.remote.root import root_refused
from corral.remote.ssh import not_runnable, ssh_command
from corral.remote.transport import SSH_FAILED
from corral.remote.unreached import unreached

# Time for the host to confirm or refuse the lock, and to release it.
ANSWER_SECONDS = 60
_END_SECONDS = 10
_MOST_BYTES = 4 * 1024**2
_CHUNK_BYTES = 64 * 1024


# Exit codes of python3 for a missing file, and of a shell without python3.
_NO_HELPER = (2, 127)


class NoHelperError(CorralError):
    """The host has no helper yet, so no lock can be held, and nothing needs one."""


class Lease:
    """A command of the helper that holds a lock while this connection lasts and sends heartbeats.

    + command: such as the installed helper's `hold`; + lines: its input, the last is its document
    + forward, back: what ssh(1) forwards meanwhile, see ``ssh_command``
    + answer: the document that confirmed the lock

    The constructor takes the lock. Raises CorralError of the host when it cannot.
    """

    def __init__(
        self,
        host: Host,
        command: list[str],
        *lines: str,
        forward: str | None = None,
        back: str | None = None,
    ) -> None:
        self._host = host
        self._unread = b""
        try:
            self._process = subprocess.Popen(
                ssh_command(host, command, forward=forward, back=back), bufsize=0,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
        except OSError as error:
            raise not_runnable(host, error) from error
        try:
            for line in lines:
                self.send(line)
            self.answer = self.read(_confirms, seconds=ANSWER_SECONDS)
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

    def read(self, wanted: Callable[[Any], bool], *, seconds: float) -> dict[str, Any]:
        """Read until a line is a wanted document. Raises CorralError, or where none comes in time.

        The connection ends with a command that failed; its reason is raised.
        """
        deadline, output = time.monotonic() + seconds, self._unread
        self._unread = b""
        while block := self._read(deadline, seconds):
            output += block
            *lines, last = output.split(b"\n")
            for number, line in enumerate(lines):
                if (document := _document(line)) is not None and wanted(document):
                    self._unread = b"\n".join([*lines[number + 1 :], last])
                    return document
            if len(output) > _MOST_BYTES:
                what = "prints too much instead of an answer"
                raise CorralError(self._host.name, what, "check what answers there")
        raise self._failed(output)

    def _failed(self, output: bytes) -> CorralError:
        code = self._process.wait()
        text = output.decode(errors="replace").strip()
        if code == SSH_FAILED:
            return unreached(self._host, text)
        if error := root_refused(self._host, text):
            return error
        if code in _NO_HELPER:
            return NoHelperError(self._host.name, text, f"deploy {self._host.name}")
        # Both streams are merged: the answer is the last line, after messages for people.
        return read_fault(text, text or f"the lock was not taken ({code})").error(self._host.name)

    def _read(self, deadline: float, seconds: float) -> bytes:
        """More output; empty at its end. Raises UnreachedError after the deadline."""
        stdout = self._process.stdout
        if stdout is None:
            return b""
        with selectors.DefaultSelector() as watched:
            watched.register(stdout, selectors.EVENT_READ)
            if watched.select(max(deadline - time.monotonic(), 0)):
                return os.read(stdout.fileno(), _CHUNK_BYTES)
        raise unreached(self._host, f"no answer within {seconds:g} s")


def _confirms(document: Any) -> bool:
    return document.get("held") is True


def _document(line: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
