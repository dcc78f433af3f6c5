"""Files of keys that are encrypted, as in a fleet's repository: ``NAME.age``, or ``NAME.sops``.

New files are encrypted with age where the store has ``.age-recipients``, one public key a line.
Files of sops are decrypted and encrypted by sops itself, by the rules of its ``.sops.yaml``.
"""

from __future__ import annotations

import io
import os
import subprocess
from functools import lru_cache
from pathlib import Path

from corral_shared.text import printable_line

from corral.errors import CorralError
from corral.files import read_small
from corral.paths import default_identity
from corral.store.age import decrypting, encrypting, is_encrypted

AGE, SOPS = ".age", ".sops"
RECIPIENTS = ".age-recipients"
_MOST_BYTES = 2 * 1024**2
# Files with the key of a recipient: of Corral, then those that sops reads.
_IDENTITIES = ("CORRAL_AGE_IDENTITY", "SOPS_AGE_KEY_FILE")


def stored_at(path: Path) -> Path | None:
    """The file that has the keys of ``path``: itself, or an encrypted one. Raises OSError."""
    for suffix in ("", AGE, SOPS):
        found = path.with_name(f"{path.name}{suffix}")
        try:
            found.lstat()
        except FileNotFoundError:
            continue
        if suffix != AGE or is_encrypted(found):
            return found
    return None


def new_file_of(path: Path, store: Path) -> Path:
    """The file to create for keys that the store does not have yet."""
    is_sealed = store.joinpath(RECIPIENTS).is_file()
    return path.with_name(f"{path.name}{AGE}") if is_sealed else path


def read(path: Path, *, most_bytes: int, next_step: str) -> bytes:
    """The decrypted content of a file of the store. Raises CorralError."""
    if path.suffix not in (AGE, SOPS):
        return read_small(path, most_bytes=most_bytes, next_step=next_step)
    content = read_small(path, most_bytes=_MOST_BYTES, next_step=next_step)
    # An instance may be called like that.
    if not (_is_age(content) if path.suffix == AGE else content.startswith(b"{")):
        return content
    return _opened(path, content)


def to_write(path: Path, content: bytes, store: Path, *, of: Path) -> bytes:
    """What to write to a file of the store, encrypted where its name says so.

    + of: the path of the plain file. Raises CorralError.
    """
    suffix = path.name.removeprefix(of.name)
    if suffix == SOPS:
        options = ("--input-type", "binary", "--output-type", "binary")
        override = ("--filename-override", str(path))
        return _sops(["--encrypt", *options, *override, "/dev/stdin"], path, content)
    if suffix != AGE:
        return content
    out = io.BytesIO()
    with encrypting(_recipients(store), out) as plain:
        plain.write(content)
    return out.getvalue()


def _recipients(store: Path) -> list[str]:
    path = store / RECIPIENTS
    step = f"write public keys of age into {path}, one a line"
    lines = read_small(path, most_bytes=_MOST_BYTES, next_step=step).decode(errors="replace")
    found = [line.strip() for line in lines.splitlines() if line.strip() and line[0] != "#"]
    if not found:
        raise CorralError(str(path), "names no recipient", step)
    return found


def _is_age(content: bytes) -> bool:
    return content.startswith((b"age-encryption.org/", b"-----BEGIN AGE"))


@lru_cache(maxsize=1024)
def _opened(path: Path, content: bytes) -> bytes:  # noqa: ARG001  (of the cache)
    """The content of an encrypted file; each is decrypted once by a command."""
    if path.suffix == SOPS:
        return _sops(["--decrypt", str(path)], path, b"")
    with decrypting(path, _identities()) as plain:
        return plain.read()


def _identities() -> list[Path]:
    named = [Path(os.environ[name]).expanduser() for name in _IDENTITIES if os.environ.get(name)]
    return [path for path in (*named, default_identity()) if path.is_file()][:1]


def _sops(arguments: list[str], path: Path, content: bytes) -> bytes:
    step = f"see `sops --decrypt {path}`"
    try:
        done = subprocess.run(["sops", *arguments], input=content, capture_output=True, check=False)
    except OSError as error:
        reason = f"sops cannot be run: {error.strerror}"
        raise CorralError(str(path), reason, "install sops (https://getsops.io)") from error
    if done.returncode != 0:
        reason = printable_line(done.stderr.decode(errors="replace"))[:300]
        raise CorralError(str(path), f"sops refuses it: {reason}", step)
    return done.stdout
