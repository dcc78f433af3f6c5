"""The API-key store on the controller: one file per instance, outside the repository.

A key file has one key per line; lines that start with ``#`` and blank lines are comments.
A server trims no whitespace, and without a key in its file it answers every client: both are
checked here.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field

from corral.errors import CorralError
from corral.files import create_atomic, make_folder, read_small, reading, write_atomic
from corral.inventory.hosts import Host
from corral.names import safe_file_name, safe_host_name
from corral.paths import default_keys_folder
from corral.plan.key_digest import key_digest
from corral.schema import Frozen
from corral.store import sealed
from corral.store.entries import KeyEntry, read_entries
from corral.store.sealed import stored_at

SHORTEST_KEY = 20
_MOST_BYTES = 1024**2
_FREE_SPACE = "free disk space there, or name another keys_folder in the inventory"
# Beside the keys of a host; no instance can have this name.
_REPLACED = ".replaced"

# Names of the keys that a host has. Raises CorralError where the host does not answer.
HeldNames = Callable[[Host], frozenset[str]]


class KeyFile(Frozen):
    """The keys of one instance. Never print ``text``."""

    path: str
    text: str = Field(repr=False)

    def __repr__(self) -> str:
        return f"KeyFile({self.path})"

    __str__ = __repr__

    @property
    def digest(self) -> str:
        """Digest of the file, for comparison with the host's."""
        return key_digest(self.text)

    @property
    def first(self) -> str:
        """The first key, for Corral's own requests."""
        return keys_in(self.text)[0]


def key_path(host: Host, instance: str) -> Path:
    """The key file of an instance on the controller.

    Raises CorralError for a name that would lead out of the store.
    """
    where, next_step = f"keys of {host.name}", "rename it in the inventory"
    safe_host_name(host.name, where=where, next_step=next_step)
    safe_file_name(instance, where=where, next_step=next_step)
    return key_store(host) / host.name / instance


def key_store(host: Host) -> Path:
    """The store that has the keys of a host."""
    folder = host.spec.keys_folder
    return Path(folder).expanduser() if folder else default_keys_folder()


class LostKeysError(CorralError):
    """The store lacks keys; ``names``: of which, as arguments of `corral keys`."""

    def __init__(self, names: Sequence[str], what: str) -> None:
        arguments = " ".join(names)
        super().__init__(
            ", ".join(names),
            what,
            f"`corral keys adopt {arguments}` copies them from there; "
            f"`corral keys new {arguments}` creates new ones, which every client then needs",
        )
        self.names = tuple(names)


def make_missing(needed: Iterable[tuple[Host, str]], held_names: HeldNames) -> None:
    """Create the missing keys, unless a host has one of them: that one is lost here.

    + needed: hosts, and names of their keys
    + held_names: called only where the store lacks a name
    Raises LostKeysError before any key is created, also where a host does not answer.
    """
    missing = [(host, name) for host, name in needed if find_keys(host, name) is None]
    _refuse_lost(missing, held_names)
    for host, name in missing:
        ensure_keys(host, name)


def _refuse_lost(missing: Sequence[tuple[Host, str]], held_names: HeldNames) -> None:
    lost, why = [], "their keys are in use there, and are not in the store of this controller"
    for host, name in missing:
        try:
            is_lost = name in held_names(host)
        except CorralError as error:
            is_lost = True
            why = (
                "not in the store of this controller, and it is unknown whether the host has them: "
                f"{error.what}"
            )
        lost += [f"{host.name}/{name}"] if is_lost else []
    if lost:
        raise LostKeysError(lost, why)


def find_keys(host: Host, name: str) -> KeyFile | None:
    """The keys of an instance or gateway, or None. Raises CorralError."""
    path = key_path(host, name)
    with reading(path, next_step=f"see {path}"):
        found = stored_at(path)
    return read_keys(found) if found else None


def stored_keys(host: Host, name: str) -> KeyFile:
    """Like find_keys(), but raises LostKeysError where the store has none."""
    found = find_keys(host, name)
    if found is None:
        what = f"the store of this controller has no keys for it ({key_path(host, name)})"
        raise LostKeysError([f"{host.name}/{name}"], what)
    return found


def ensure_keys(host: Host, instance: str) -> KeyFile:
    """Read the key file of an instance; create it with one random key where it is missing.

    Only for keys that no host has yet: see ``make_missing``. Raises CorralError for a file that
    llama-server would misread.
    """
    path = key_path(host, instance)
    with reading(path, next_step=f"see {path}"):
        is_there = stored_at(path) is not None
    if not is_there:
        _create(path, _text(host, instance, [new_key()]), key_store(host))
    return read_keys(_found(path))


def keep_keys(host: Host, name: str, keys: Sequence[str], *, replace: bool = False) -> bool:
    """Write keys to the store; returns whether that changed it.

    + replace: replace other keys, which are kept as a backup; without it they raise CorralError
    """
    text = _text(host, name, keys)
    problem = "is larger than any" if len(text) > _MOST_BYTES else _problem(text.encode())
    if problem:
        step = f"check the keys on {host.name}, or run `corral keys new {host.name}/{name}`"
        raise CorralError(f"{host.name}/{name}", f"its key file {problem}", step)
    return keep_text(
        host,
        name,
        text,
        is_there=lambda: keys_in(stored_keys(host, name).text) == list(keys),
        replace=replace,
    )


def keep_text(
    host: Host, name: str, text: str, *, is_there: Callable[[], bool], replace: bool
) -> bool:
    """Like keep_keys(), for a text that was checked.

    + is_there: whether the file that the store has already means the same
    """
    path = key_path(host, name)
    if _create(path, text, key_store(host)):
        return True
    if is_there():
        return False
    if not replace:
        what = f"the store has other keys for it ({path})"
        raise CorralError(f"{host.name}/{name}", what, "add --replace to replace those")
    found = _found(path)
    _back_up(found)
    _write(found, text, key_store(host), of=path)
    return True


def new_keys(host: Host, name: str, *, replace: bool = False) -> None:
    """Create a new key. Raises CorralError where there is one, unless ``replace`` is set."""
    keep_keys(host, name, [new_key()], replace=replace)


def entries_of(host: Host, name: str) -> tuple[KeyEntry, ...]:
    """The keys of a file of the store, with whose they are.

    Raises CorralError, LostKeysError where the store has none.
    """
    stored_keys(host, name)
    return read_entries(_text_at(_found(key_path(host, name)))).entries


def change_keys(
    host: Host, name: str, change: Callable[[Sequence[KeyEntry]], Sequence[KeyEntry]]
) -> None:
    """Change the keys of a file of the store; other processes of this controller wait.

    + change: returns the new entries, or raises, which leaves the file as it was
    Raises CorralError, LostKeysError where the store has none.
    """
    path = key_path(host, name)
    stored_keys(host, name)
    with _alone(path):
        found = _found(path)
        old = read_entries(_text_at(found))
        new = old.model_copy(update={"entries": tuple(change(old.entries))})
        if problem := _problem(new.text.encode()):
            raise CorralError(f"{host.name}/{name}", f"its key file {problem}", f"see {path}")
        if new.entries != old.entries:
            _write(found, new.text, key_store(host), of=path)


def _found(path: Path) -> Path:
    """The file that has the keys of ``path``, encrypted or not. Raises CorralError."""
    with reading(path, next_step=f"see {path}"):
        return stored_at(path) or path


def _text_at(path: Path) -> str:
    return sealed.read(path, most_bytes=_MOST_BYTES, next_step=f"see {path}").decode()


def _write(path: Path, text: str, store: Path, *, of: Path) -> None:
    content = sealed.to_write(path, text.encode(), store, of=of)
    write_atomic(path, content, mode=0o600, next_step=_FREE_SPACE)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the folder of a key file until the block or this process ends."""
    with reading(path.parent, next_step=f"see {path}"):
        handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def forget_keys(host: Host, name: str) -> bool:
    """Remove the keys of an instance that is gone; returns whether there were any."""
    path = key_path(host, name)
    if not path.exists():
        return False
    path.unlink()
    return True


def read_keys(path: Path) -> KeyFile:
    """Read and check a key file. Raises CorralError with the offending line's number."""
    data = sealed.read(path, most_bytes=_MOST_BYTES, next_step=f"see {path}")
    problem = _problem(data)
    if problem:
        step = f"edit {path}; or remove it, then run `corral keys adopt`, or deploy a new instance"
        raise CorralError(str(path), problem, step)
    keys = keys_in(data.decode())
    # Without comments: ik_llama.cpp reads a line that starts with # as a key.
    return KeyFile(path=str(path), text="".join(f"{key}\n" for key in keys))


def keys_in(text: str) -> list[str]:
    """The keys of a file, as the servers read them."""
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
            return f"line {number} has a character that an HTTP header cannot carry"
        if len(line) < SHORTEST_KEY:
            return f"line {number} is a key of fewer than {SHORTEST_KEY} characters"
    if not keys_in(text):
        return "holds no key, which would open the server to every client"
    return None


def new_key() -> str:
    """A random key; never with a dash in front, which some engines would take for a flag."""
    while (key := secrets.token_urlsafe(32)).startswith("-"):
        pass
    return key


def _text(host: Host, name: str, keys: Sequence[str]) -> str:
    lines = "".join(f"{key}\n" for key in keys)
    return f"# API keys of {name} on {host.name}, one per line.\n{lines}"


def _create(path: Path, text: str, store: Path) -> bool:
    """Create a file with mode 0600, atomically; False when there is one already."""
    for folder in (path.parent.parent, path.parent):
        make_folder(folder, mode=0o700, next_step=_FREE_SPACE)
    if _found(path) != path:
        return False
    new = sealed.new_file_of(path, store)
    content = sealed.to_write(new, text.encode(), store, of=path)
    return create_atomic(new, content, mode=0o600, next_step=_FREE_SPACE)


def _back_up(path: Path) -> None:
    """Keep a copy of replaced keys, for an operator who replaced the wrong ones."""
    folder = path.parent / _REPLACED
    make_folder(folder, mode=0o700, next_step=_FREE_SPACE)
    old = read_small(path, most_bytes=_MOST_BYTES, next_step=f"see {path}")
    name = f"{path.name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"
    create_atomic(folder / name, old, mode=0o600, next_step=_FREE_SPACE)
