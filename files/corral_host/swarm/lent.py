"""The folder that aria2 of a swarm writes to, and the only one.

aria2 runs as a user of its own and reads bytes of other machines. A file that arrives is moved here
for it, and restored before its digest is proved: what is proved lies where that user cannot
reach, belongs to root, and is compared with what stat said before it was read, as a program that
is gone wrong may still have it open.
"""

import os
import shutil
import stat
from pathlib import Path

from corral_host.weights.receipts import LENT

# aria2's own record of what has arrived.
CONTROL = ".aria2"


class Lent:
    """The folder beside staged files. ``home``: the folder of those; ``user``: aria2's."""

    def __init__(self, home):
        self.home, self.folder, self.user = Path(home), Path(home) / LENT, os.geteuid()

    def open(self):
        """Make the folder; what a killed job left in it is restored."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.restore_all()
        self.folder.mkdir(mode=0o700, exist_ok=True)

    def give_to(self, user):
        self.user = user
        os.chown(self.folder, user, user)

    def lend(self, staged):
        """Move a staged file here; returns its place. One that does not exist is made by aria2."""
        place = self.folder / staged.name
        for path in (staged, with_control(staged)):
            if path.exists():
                # Its user may put another file there meanwhile: the owner follows this one.
                # After a kill in between `restore_all` finds root's file.
                with path.open("rb") as file:
                    os.replace(path, self.folder / path.name)
                    os.fchown(file.fileno(), self.user, self.user)
        return place

    def show(self, path):
        """A second name here for a whole file that aria2 could not reach; returns its place."""
        place = self.folder / path.name
        place.unlink(missing_ok=True)
        os.link(path, place)
        place.chmod(0o644)
        return place

    def hide(self, path):
        (self.folder / path.name).unlink(missing_ok=True)

    def restore(self, staged):
        """Move a file to where it is staged, as root's."""
        for path in (staged, with_control(staged)):
            self._restore(self.folder / path.name, path)

    def restore_all(self):
        """At the end, when aria2 has ended: also what a killed job left."""
        if not self.folder.is_dir():
            return
        for path in list(self.folder.iterdir()):
            staged = self.home / path.name
            if staged.exists() and not is_odd(path):
                # Of a lent file nothing stays there.
                path.unlink()
            else:
                self._restore(path, staged)
        self.folder.rmdir()

    def _restore(self, lent, staged):
        if is_odd(lent):
            return
        os.replace(lent, staged)
        # Only root reaches it from here on. It may not be what was looked at.
        if not is_odd(staged):
            os.chown(staged, os.geteuid(), os.getegid())
            staged.chmod(0o644)


def is_odd(path):
    """Whether there is no plain file with one name; what else is there is removed."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return True
    odd = not stat.S_ISREG(found.st_mode) or found.st_nlink != 1
    if odd:
        shutil.rmtree(path) if stat.S_ISDIR(found.st_mode) else path.unlink()
    return odd


def with_control(path):
    return path.with_name(path.name + CONTROL)
