"""Staged keys: an activation puts them in place; until then a server starts with its previous ones.

<folder of keys>/.staged/<name> is kept until its activation, .before/<name> until that ends. No
instance can have these names, as names begin with a letter or a digit.
"""

from pathlib import Path

from corral_host.system.commands import rename, write_atomic

PRIVATE = 0o700
FILE = 0o600


def staged_path(key_path):
    return beside(key_path, ".staged")


def before_path(key_path):
    return beside(key_path, ".before")


def beside(key_path, folder):
    path = Path(key_path)
    return path.parent / folder / path.name


def waits(key_path):
    return staged_path(key_path).exists()


def due_path(key_path):
    """The key file that the next activation will serve with."""
    return staged_path(key_path) if waits(key_path) else Path(key_path)


def write(key_path, text):
    """Stage keys of an instance that may be started at any time.

    Keys that are in place already are not staged.
    """
    active = Path(key_path)
    active.chmod(FILE)
    if active.read_bytes() == text.encode():
        forget(key_path)
        return
    make(staged_path(key_path).parent)
    write_atomic(staged_path(key_path), text, mode=FILE)


def forget(key_path):
    staged_path(key_path).unlink(missing_ok=True)


def put(key_path):
    """Put staged keys in place by one rename.

    The previous file is kept, so that a revert needs no disk space.
    """
    active = Path(key_path)
    staged, before = staged_path(active), before_path(active)
    if not staged.exists():
        return
    if active.exists():
        make(before.parent)
        write_atomic(before, active.read_text(), mode=FILE)
    rename(staged, active)


def path_before(key_path):
    """The key file that the previous generation starts with."""
    active = Path(key_path)
    before = before_path(active)
    return before if before.exists() else active


def restore(key_path):
    """Put the previous file back; may run twice."""
    active = Path(key_path)
    if before_path(active).exists():
        rename(before_path(active), active)


def clear(key_path):
    """Remove the previous file after an activation, so that a later revert does not restore it."""
    before_path(key_path).unlink(missing_ok=True)


def make(folder):
    folder.mkdir(mode=PRIVATE, exist_ok=True)
    folder.chmod(PRIVATE)
