"""age(1) for files that hold secrets: encrypted for recipients, decrypted with identities."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from corral_shared.text import printable_line

from corral.errors import CorralError
from corral.paths import default_identity

# The first bytes of its files, binary and in armor (age-encryption.org/v1).
_MAGIC = (b"age-encryption.org/v1", b"-----BEGIN AGE ENCRYPTED FILE-----")
_CHUNK_BYTES = 1024**2
_INSTALL = "install the package age (apt install age), then run the same command again"


def is_encrypted(path: Path) -> bool:
    """Whether a file is one of age's. Raises OSError."""
    with path.open("rb") as file:
        return file.read(64).startswith(_MAGIC)


@contextmanager
def encrypting(recipients: Sequence[str], out: IO[bytes]) -> Iterator[IO[bytes]]:
    """A file whose content is written to ``out``, encrypted for recipients.

    + recipients: public keys of age, or ssh public keys
    + out: a file; or memory, for content of at most some kilobytes
    Raises CorralError.
    """
    command = ["age", *(word for one in recipients for word in ("--recipient", one))]
    piped = isinstance(out, io.BytesIO)
    with _run(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE if piped else out) as running:
        plain = cast("IO[bytes]", running.stdin)
        try:
            yield plain
            plain.close()
        except BrokenPipeError:
            # age's own reason is reported below.
            pass
        if running.stdout:
            # Of a few kilobytes, which a pipe holds.
            out.write(running.stdout.read())
        _end(running, "encrypt", "name recipients as `age1...` or an ssh public key")


@contextmanager
def decrypting(path: Path, identities: Sequence[Path]) -> Iterator[IO[bytes]]:
    """The content of an encrypted file. Raises CorralError, with age's reason before others."""
    if not identities:
        what = "is encrypted with age"
        step = f"put the key of a recipient into {default_identity()}, or add --identity FILE"
        raise CorralError(str(path), what, step)
    command = ["age", "--decrypt", *(f"--identity={one}" for one in identities), "--", str(path)]
    with _run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as running:
        plain = cast("IO[bytes]", running.stdout)
        try:
            yield plain
        finally:
            # age proves the end of a file only to who reads it.
            while plain.read(_CHUNK_BYTES):
                pass
            plain.close()
            _end(running, f"decrypt {path}", "add --identity FILE with the key of a recipient")


@contextmanager
def _run(
    command: list[str], *, stdin: int, stdout: int | IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    try:
        running = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE)
    except OSError as error:
        raise CorralError("age", f"cannot be run: {error.strerror}", _INSTALL) from error
    try:
        yield running
    finally:
        if running.poll() is None:
            running.kill()
        running.wait()
        if running.stderr:
            running.stderr.close()


def _end(running: subprocess.Popen[bytes], what: str, next_step: str) -> None:
    """Wait for the end of age. Raises CorralError with its own reason where it failed."""
    errors = running.stderr.read() if running.stderr else b""
    if running.wait() != 0:
        lines = errors.decode(errors="replace").splitlines()
        reason = printable_line("; ".join(lines[:3])) or f"exit code {running.returncode}"
        raise CorralError("age", f"cannot {what}: {reason}", next_step)
