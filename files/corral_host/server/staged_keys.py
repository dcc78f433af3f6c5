"""Keys that an activation will put in place: until then starts of a server read those of before.

<folder of keys>/.staged/<name> waits for its activation, .before/<name> for its end. No instance is
called so, as names begin with a letter or a digit.
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
    """The file that the next activation will serve with."""
    return staged_path(key_path) if waits(key_path) else Path(key_path)


def write(key_path, text):
    """Put them there, for an instance that may be started meanwhile.

    Those that are in place already wait for nothing.
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
    """In one rename, the file of before kept; the revert needs no disk space."""
    active = Path(key_path)
    staged, before = staged_path(active), before_path(active)
    if not staged.exists():
        return
    if active.exists():
        make(before.parent)
        write_atomic(before, active.read_text(), mode=FILE)
    rename(staged, active)


def path_before(key_path):
    """The file that the generation of before is started with."""
    active = Path(key_path)
    before = before_path(active)
    return before if before.exists() else active


def put_back(key_path):
    """The file of before; what is done already stays."""
    active = Path(key_path)
    if before_path(active).exists():
        rename(before_path(active), active)


def clear(key_path):
    """Of an activation that ended: its revert is not that of the next one."""
    before_path(key_path).unlink(missing_ok=True)


def make(folder):
    folder.mkdir(mode=PRIVATE, exist_ok=True)
    folder.chmod(PRIVATE)
