"""Run a program with limits on its output and time."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from typing import IO, NamedTuple

OUT_BYTES = 64 * 1024**2
ERR_BYTES = 1024**2
_CHUNK_BYTES = 64 * 1024
# For a program that has closed its pipes.
_LEAST_SECONDS = 1


class Ended(NamedTuple):
    """Exit code and output of a program."""

    code: int
    out: bytes
    err: bytes


class TooMuchError(Exception):
    """A program exceeded its output limit and was killed."""


class SilentError(Exception):
    """A program exceeded its time limit and was killed."""


def run_within(command: list[str], sent: bytes, *, seconds: float) -> Ended:
    """Run a program to its end with ``sent`` on its standard input.

    Raises TooMuchError, SilentError; OSError where there is no such program.
    """
    deadline = time.monotonic() + seconds
    with subprocess.Popen(
        command, bufsize=0,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            out, err = _talk(process, sent, deadline)
            remaining = max(deadline - time.monotonic(), _LEAST_SECONDS)
            return Ended(process.wait(remaining), out, err)
        except subprocess.TimeoutExpired as error:
            raise SilentError(f"no answer within {seconds:.0f} s") from error
        except SilentError as error:
            raise SilentError(f"no answer within {seconds:.0f} s") from error
        finally:
            process.kill()


def _talk(process: subprocess.Popen[bytes], sent: bytes, deadline: float) -> tuple[bytes, bytes]:
    """Write to standard input, and read both outputs until they are closed."""
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    if not (stdin and stdout and stderr):
        raise ValueError("all three are pipes")
    output = {stdout: bytearray(), stderr: bytearray()}
    limits = {stdout: OUT_BYTES, stderr: ERR_BYTES}
    unsent = memoryview(sent)
    os.set_blocking(stdin.fileno(), False)
    with selectors.DefaultSelector() as watched:
        watched.register(stdout, selectors.EVENT_READ)
        watched.register(stderr, selectors.EVENT_READ)
        watched.register(stdin, selectors.EVENT_WRITE)
        while watched.get_map():
            ready = watched.select(max(deadline - time.monotonic(), 0))
            if not ready and time.monotonic() >= deadline:
                raise SilentError
            for key, _ in ready:
                pipe: IO[bytes] = key.fileobj  # type: ignore[assignment]
                if pipe is stdin:
                    unsent = _write(stdin, unsent)
                    over = not unsent
                else:
                    over = not _read(pipe, output[pipe], limits[pipe])
                if over:
                    watched.unregister(pipe)
                    pipe.close()
    return bytes(output[stdout]), bytes(output[stderr])


def _write(stdin: IO[bytes], unsent: memoryview) -> memoryview:
    """Write some bytes; returns the rest, empty where the program has closed its input."""
    try:
        return unsent[os.write(stdin.fileno(), unsent[:_CHUNK_BYTES]) :]
    except BlockingIOError:
        return unsent
    except BrokenPipeError:
        return unsent[:0]


def _read(pipe: IO[bytes], output: bytearray, limit_bytes: int) -> bool:
    """Read some bytes; returns whether there may be more. Raises TooMuchError."""
    block = os.read(pipe.fileno(), _CHUNK_BYTES)
    output += block
    if len(output) > limit_bytes:
        raise TooMuchError(f"an answer of more than {limit_bytes // 1024**2} MiB")
    return bool(block)
