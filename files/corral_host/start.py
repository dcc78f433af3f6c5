"""The helper's archive begins here: it runs the helper from files that Python has compiled.

Python compiles what it imports from an archive each time, which takes longer than most commands. So
the installed helper unpacks its archive once into a folder in memory, where Python keeps what it
compiled. The folder is root's alone and named after the archive's digest: a helper that travels on
standard input uses it where it is the same one (corral/remote/helper_archive.py).
"""

import contextlib
import hashlib
import os
import sys

INSTALLED = "/usr/local/lib/corral/corral_host.pyz"
# Gone after a boot, as is what a kill left half unpacked.
FOLDER = "/run/corral-helper"
# Versions that stay: jobs that began with one may still run.
KEPT = 4


def unpacked(archive):
    """The folder with an archive's files; None where it cannot be made, as in a full memory."""
    with contextlib.suppress(OSError):
        with open(archive, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        folder = os.path.join(FOLDER, digest)
        if os.path.isdir(folder) or unpack(archive, folder):
            return folder
    return None


def unpack(archive, folder):
    """Unpack an archive by one rename; returns whether the folder is complete."""
    # Imported only here, as each import costs every command.
    import shutil
    import zipfile
    import zlib

    partial = f"{folder}.{os.getpid()}"
    os.makedirs(FOLDER, mode=0o700, exist_ok=True)
    try:
        with zipfile.ZipFile(archive) as files:
            files.extractall(partial)
        forget_old(shutil.rmtree)
        # Another process may have been faster.
        with contextlib.suppress(OSError):
            os.rename(partial, folder)
    except (zipfile.BadZipFile, zlib.error, ValueError, NotImplementedError):
        return False
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return os.path.isdir(folder)


def forget_old(remove):
    """Remove versions, so that with the new one the newest stay."""
    paths = [os.path.join(FOLDER, name) for name in os.listdir(FOLDER) if "." not in name]
    for path in sorted(paths, key=os.path.getmtime, reverse=True)[KEPT - 1 :]:
        remove(path, ignore_errors=True)


def main():
    """Run the helper from its unpacked files where that is possible, else from its archive."""
    if sys.argv[0] == INSTALLED and os.geteuid() == 0 and (folder := unpacked(INSTALLED)):
        sys.path.insert(0, folder)
    from corral_host.__main__ import main as run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
