"""Commands, faults, and files written atomically: tools that the other modules share."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

# Where NVIDIA's packages put the toolkit, before a distribution's older one in the PATH.
PROGRAMS = f"/usr/local/cuda/bin:{os.environ.get('PATH', os.defpath)}"
# How much of a log a message about a failure shows.
TAIL_LINES = 30
CHUNK_BYTES = 8 * 1024 * 1024
PROGRESS_BYTES = 64 * CHUNK_BYTES
# Exit code of aria2c, and errorCode of its RPC.
ARIA2_DISK_FULL = 9


class HostError(Exception):
    """A fault that a person can act on; the exit code is 1.

    ``what``: what is wrong; ``next_step``: what to type or change next, empty if the caller knows
    better; ``where``: such as an instance, empty for the host itself. ``answer``: the result that
    a failed job reports beside the fault.
    """

    answer = None

    def __init__(self, what, next_step="", where=""):
        super().__init__(sentence(what, next_step))
        self.what, self.next_step, self.where = what, next_step, where


def sentence(what, next_step):
    """A fault and its next step as one text, for logs, reports and people on the host."""
    if not next_step:
        return what
    return f"{what}\n  Next: {next_step}" if "\n" in what else f"{what}. Next: {next_step}"


def as_fault(error):
    """A fault as a document: the controller reads its fields, not its text."""
    if isinstance(error, HostError):
        return {"where": error.where, "what": error.what, "next_step": error.next_step}
    if isinstance(error, OSError):
        what = f"{error.strerror or error} ({error.filename})" if error.filename else str(error)
        full = "free space there, run the same deploy again"
        return {
            "where": "", "what": what, "next_step": full if error.errno == errno.ENOSPC else ""
        }  # fmt: skip
    return {"where": "", "what": f"{type(error).__name__}: {error}", "next_step": ""}


def what_is_wrong(error):
    """A fault without its next step, to quote in the message of another fault."""
    return error.what if isinstance(error, HostError) else str(error)


def disk_full(folder):
    """The fault of a full disk, where another program found it."""
    return HostError(f"{folder}: disk full", "free space there, run the deploy again")


# What reading a server's answer, a file or a command's output can raise; anything else is a bug.
FAULTS = (HostError, OSError, ValueError, KeyError, IndexError)


def output(*command):
    """Standard output of a command. Raises HostError with its standard error if it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise HostError(
            f"{' '.join(command[:3])} failed ({done.returncode}): {done.stderr.strip()}"
        )
    return done.stdout


def loud(*command, **options):
    """Run a command whose output belongs in the log."""
    code = subprocess.run(command, **options).returncode
    if code != 0:
        raise HostError(f"{' '.join(map(str, command[:3]))} failed with exit code {code}")


def find_program(name):
    return shutil.which(name, path=PROGRAMS)


def say(text):
    # A full disk may lose a line of a log, but never stops the work.
    with contextlib.suppress(OSError):
        print(text, flush=True)


def sha256_of(path, progress=None):
    digest, done = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while block := file.read(CHUNK_BYTES):
            digest.update(block)
            done += len(block)
            if progress and done % PROGRESS_BYTES == 0:
                progress(done)
    return digest.hexdigest()


def digest_or_none(path):
    return sha256_of(path) if os.path.exists(path) else None


def read_json(path):
    """A JSON document; None if the file is missing or damaged."""
    try:
        return json.loads(Path(path).read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def sync(path):
    """Flush a file or a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path, text, mode=0o644):
    """Write a whole file or nothing, with its mode from the first byte."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    # A writer that died before a reboot may have had the same pid.
    temporary.unlink(missing_ok=True)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(handle, "w") as file:
            # os.open applied the umask.
            os.fchmod(handle, mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        rename(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def rename(whole, path):
    """Rename a file, link or folder into place, and flush that before anything that follows.

    ``whole``: the complete file, whose bytes are on the disk.
    """
    os.replace(whole, path)
    sync(Path(path).parent)


def point(link, target):
    """Make or move a symbolic link in one step."""
    temporary = Path(f"{link}.new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    temporary.symlink_to(target)
    rename(temporary, link)


def linked(folder, name):
    """The generation that a link in a folder names, or None."""
    link = Path(folder) / name
    return os.path.basename(os.readlink(link)) if link.is_symlink() else None


def show(unit, *properties):
    """Properties of a unit, as strings."""
    names = ",".join(properties)
    lines = output("systemctl", "show", unit, f"--property={names}").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def quiet(*arguments):
    """Run systemctl and ignore a failure: a unit that does not exist counts as a stopped one."""
    subprocess.run(["systemctl", *arguments], stderr=subprocess.DEVNULL, check=False)
