"""Run a program that may say too much or nothing: its size and its time are limited."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from typing import IO, NamedTuple

OUT_BYTES = 64 * 1024**2
ERR_BYTES = 1024**2
_CHUNK_BYTES = 64 * 1024
# For a program whose pipes are closed already.
_LEAST_SECONDS = 1


class Ended(NamedTuple):
    """How a program ended, and what it said."""

    code: int
    out: bytes
    err: bytes


class TooMuchError(Exception):
    """A program said more than it may, and was ended."""


class SilentError(Exception):
    """A program did not end in time, and was ended."""


def run_within(command: list[str], sent: bytes, *, seconds: float) -> Ended:
    """Run a program to its end, with ``sent`` on its standard input.

    Raises TooMuchError, SilentError; OSError where there is no such program.
    """
    deadline = time.monotonic() + seconds
    with subprocess.Popen(
        command, bufsize=0,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            out, err = _talk(process, sent, deadline)
            left = max(deadline - time.monotonic(), _LEAST_SECONDS)
            return Ended(process.wait(left), out, err)
        except subprocess.TimeoutExpired as error:
            raise SilentError(f"no answer within {seconds:.0f} s") from error
        except SilentError as error:
            raise SilentError(f"no answer within {seconds:.0f} s") from error
        finally:
            process.kill()


def _talk(process: subprocess.Popen[bytes], sent: bytes, deadline: float) -> tuple[bytes, bytes]:
    """Send, and read both outputs until they are closed."""
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    if not (stdin and stdout and stderr):
        raise ValueError("all three are pipes")
    heard = {stdout: bytearray(), stderr: bytearray()}
    limits = {stdout: OUT_BYTES, stderr: ERR_BYTES}
    left = memoryview(sent)
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
                    left = _sent(stdin, left)
                    over = not left
                else:
                    over = not _heard(pipe, heard[pipe], limits[pipe])
                if over:
                    watched.unregister(pipe)
                    pipe.close()
    return bytes(heard[stdout]), bytes(heard[stderr])


def _sent(stdin: IO[bytes], left: memoryview) -> memoryview:
    """What is still to be sent; nothing to a program that does not read."""
    try:
        return left[os.write(stdin.fileno(), left[:_CHUNK_BYTES]) :]
    except BlockingIOError:
        return left
    except BrokenPipeError:
        return left[:0]


def _heard(pipe: IO[bytes], kept: bytearray, limit_bytes: int) -> bool:
    """Whether there may be more. Raises TooMuchError."""
    block = os.read(pipe.fileno(), _CHUNK_BYTES)
    kept += block
    if len(kept) > limit_bytes:
        raise TooMuchError(f"an answer of more than {limit_bytes // 1024**2} MiB")
    return bool(block)
