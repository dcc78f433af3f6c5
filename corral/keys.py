"""The api-key store on the controller: one file per instance, outside the repository.

A key file holds one key a line; lines that start with ``#`` and blank lines are comments.
llama-server trims nothing, and with no key in its file it answers everybody: both are caught here.
"""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path

from pydantic import Field

from corral.errors import CorralError
from corral.files import create_atomic, make_folder, read_small
from corral.inventory import Host
from corral.names import safe_file_name, safe_host_name
from corral.schema import Frozen
from corral.settings import default_keys_folder

SHORTEST_KEY = 20
_MOST_BYTES = 1024**2


class KeyFile(Frozen):
    """The keys of one instance. Never print ``text``."""

    path: str
    text: str = Field(repr=False)

    def __repr__(self) -> str:
        return f"KeyFile({self.path})"

    __str__ = __repr__

    @property
    def sha256(self) -> str:
        """Digest of the whole file, to compare with the host's."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def first(self) -> str:
        """The first key, for Corral's own requests."""
        return keys_in(self.text)[0]


def key_path(host: Host, instance: str) -> Path:
    """Where the controller keeps the keys of an instance.

    Raises CorralError for a name that would lead out of the store.
    """
    where, next_step = f"keys of {host.name}", "rename it in the inventory"
    safe_host_name(host.name, where=where, next_step=next_step)
    safe_file_name(instance, where=where, next_step=next_step)
    folder = host.spec.keys_folder
    store = Path(folder).expanduser() if folder else default_keys_folder()
    return store / host.name / instance


def ensure_keys(host: Host, instance: str) -> KeyFile:
    """Read the key file of an instance, made with one random key if there is none.

    Raises CorralError for a file that llama-server would misread.
    """
    path = key_path(host, instance)
    if not path.exists():
        _create(path, f"# API keys of {instance} on {host.name}, one a line.\n")
    return read_keys(path)


def read_keys(path: Path) -> KeyFile:
    """Read and check a key file. Raises CorralError with the offending line's number."""
    data = read_small(path, most_bytes=_MOST_BYTES, next_step=f"see {path}")
    problem = _problem(data)
    if problem:
        raise CorralError(str(path), problem, f"edit {path}, or remove it to have a new key made")
    keys = keys_in(data.decode())
    # Comments stay here: ik_llama.cpp takes a line that starts with # for a key.
    return KeyFile(path=str(path), text="".join(f"{key}\n" for key in keys))


def keys_in(text: str) -> list[str]:
    """The keys of a file, as llama-server reads them."""
    return [line for line in text.split("\n") if line and not line.startswith("#")]


def _problem(data: bytes) -> str | None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return "not text"
    if "\r" in text:
        return "has Windows line ends (CRLF), which would become part of each key"
    for number, line in enumerate(text.split("\n"), start=1):
        if line.startswith("#") or not line:
            continue
        if line != line.strip() or len(line.split()) != 1:
            return f"line {number} has white space in it, which would become part of the key"
        if not (line.isascii() and line.isprintable()):
            return f"line {number} has a character that no HTTP header can carry"
        if len(line) < SHORTEST_KEY:
            return f"line {number} is a key of fewer than {SHORTEST_KEY} characters"
    if not keys_in(text):
        return "holds no key, which would open the server to everybody"
    return None


def _create(path: Path, comment: str) -> None:
    """Whole or not at all, 0600 from the first byte; a twin who was quicker wins."""
    step = "make room there, or name another keys_folder in the inventory"
    for folder in (path.parent.parent, path.parent):
        make_folder(folder, mode=0o700, next_step=step)
    text = f"{comment}{secrets.token_urlsafe(32)}\n"
    create_atomic(path, text, mode=0o600, next_step=step)
