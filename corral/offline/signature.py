"""minisign(1): the signature of a bundle's manifest, which names every file by its digest."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from corral_shared.text import printable_line

from corral.errors import CorralError
from corral.offline.manifest import DOCUMENT, SIGNATURE

_INSTALL = "install the package minisign (apt install minisign), then run the same command again"
_SECONDS = 120


def sign(folder: Path, key: Path, *, passphrase: str | None) -> None:
    """Sign the manifest of a bundle. Raises CorralError.

    + key: file of the secret key; + passphrase: None for a key without one. It goes to minisign by
      standard input alone
    """
    _refuse_absent(key, "secret key")
    document, signature = folder / DOCUMENT, folder / SIGNATURE
    new = signature.with_name(f".{SIGNATURE}.new")
    command = ["-S", "-s", str(key), "-m", str(document), "-x", str(new), "-t", DOCUMENT]
    done = _minisign([*command, *(["-W"] if passphrase is None else [])], f"{passphrase or ''}\n")
    if done.returncode != 0:
        new.unlink(missing_ok=True)
        what = f"cannot be signed with {key}: {_reason(done)}"
        step = "give the key's passphrase by standard input with --passphrase-stdin"
        raise CorralError(str(document), what, step)
    new.replace(signature)


def require_signature(folder: Path, public_key: Path) -> None:
    """Raises CorralError unless the manifest of a bundle is signed with a key."""
    _refuse_absent(public_key, "public key")
    document, signature = folder / DOCUMENT, folder / SIGNATURE
    if not signature.is_file():
        what = f"is not signed: there is no {SIGNATURE} beside it"
        step = (
            "get it again from where it was written, with "
            "`corral bundle -o FOLDER INVENTORY --sign-with KEY`"
        )
        raise CorralError(str(document), what, step)
    done = _minisign(["-V", "-p", str(public_key), "-m", str(document), "-x", str(signature)], "")
    if done.returncode != 0:
        what = f"is not what the key of {public_key} signed: {_reason(done)}"
        step = "do not use this bundle; get it again, and compare the public key with its owner's"
        raise CorralError(str(document), what, step)


def _refuse_absent(path: Path, what: str) -> None:
    if not path.is_file():
        raise CorralError(str(path), f"there is no such file with a {what}", "name another file")


def _minisign(arguments: Sequence[str], stdin: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["minisign", *arguments], input=stdin, capture_output=True, text=True,
            errors="replace", timeout=_SECONDS, check=False,
        )  # fmt: skip
    except OSError as error:
        raise CorralError("minisign", f"cannot be run: {error.strerror}", _INSTALL) from error
    except subprocess.TimeoutExpired as error:
        raise CorralError("minisign", f"gave no answer in {_SECONDS} s", _INSTALL) from error


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """Its own words, without the question for a passphrase."""
    lines = [line.removeprefix("Password: ").strip() for line in done.stderr.splitlines()]
    found = printable_line("; ".join(line for line in lines if line))
    return found or f"exit code {done.returncode}"
