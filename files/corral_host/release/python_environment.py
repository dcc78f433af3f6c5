"""A release that is a Python environment: this host's interpreter, and unpacked wheels.

No code of a wheel runs here: its files are put where the interpreter finds them (PEP 427, the part
that needs no program). ``bin/python`` is a copy, so that a server's program belongs to the release.
pyvenv.cfg in the folder above makes it an environment of its own at any path (PEP 405).
"""

import hashlib
import os
import shutil
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import PurePosixPath

from corral_shared.names import hub_path_problem
from corral_shared.text import printable_line

from corral_host.release.console_scripts import RELEASES_PYTHON, write_console_scripts
from corral_host.release.limits import refuse_full
from corral_host.release.whole import cpu
from corral_host.system.commands import CHUNK_BYTES, HostError, output, say
from corral_host.system.modes import open_folder

INTERPRETER = "/usr/bin/python3"
SILENT_SECONDS = 60
# End of the folder with files for other folders than site-packages (PEP 427).
DATA = ".data"
# Folders of a release that a wheel may add files to; everything else there is Corral's.
DATA_FOLDERS = ("bin", "etc", "include", "lib", "share")
# First lines of scripts for which the installer chooses the interpreter.
ANY_PYTHON = (b"#!python\n", b"#!python\r\n", b"#!pythonw\n")
# Raised by zipfile for archives that are damaged, encrypted or compressed by unknown methods.
BROKEN = (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error)
AGAIN = "check the engine's wheels in the catalog, then run the deploy again"
ALLOW = (
    "if that is meant, raise unpacked_bytes or unpacked_files of [python] in the engine's catalog "
    "file, then run the deploy again"
)


def make(release, staging):
    """Make the environment in ``staging``; returns this host's versions, for the manifest."""
    version = interpreter_version()
    found = {"python": version, "cpu": cpu()}
    packages = staging / "lib" / f"python{version.rpartition('.')[0]}" / "site-packages"
    open_folder(packages)
    open_folder(staging / "bin")
    shutil.copyfile(os.path.realpath(INTERPRETER), staging / "bin" / "python")
    home = os.path.dirname(INTERPRETER)
    (staging / "pyvenv.cfg").write_text(
        f"home = {home}\ninclude-system-site-packages = false\nversion = {version}\n"
    )
    unpacker = Unpacker(release, staging, packages)
    for wheel in release["artifact"]["wheels"]:
        unpacker.add(wheel)
    write_console_scripts(release, packages, staging / "bin")
    return found


def interpreter_version():
    program = "import platform; print(platform.python_version())"
    return output(INTERPRETER, "-I", "-c", program).strip()


class Unpacker:
    """Unpacks wheels into one release; the plan limits all of them together."""

    def __init__(self, release, staging, packages):
        self.release, self.staging, self.packages = release, staging, packages
        self.bytes_left = release["limits"]["unpacked_bytes"]
        self.files_left = release["limits"]["unpacked_files"]

    def add(self, wheel):
        path = self.staging / wheel["file"]
        try:
            refuse_full(self.staging, wheel["size_bytes"], self.release["engine"])
            fetch(self.release, wheel, path)
            self.unpack(wheel, path)
        finally:
            path.unlink(missing_ok=True)

    def unpack(self, wheel, path):
        """Unpack a wheel. Raises HostError if a file is not allowed or exists with other bytes."""
        try:
            with zipfile.ZipFile(path) as archive:
                members = [one for one in archive.infolist() if not one.is_dir()]
                self.take(wheel, members)
                for member in members:
                    target = self.target(wheel, member)
                    open_folder(target.parent)
                    with archive.open(member) as source:
                        write(source, target, is_script(member.filename))
        except (*BROKEN, FileExistsError, NotADirectoryError) as fault:
            raise refused(
                self.release, wheel, f"cannot be unpacked: {printable_line(fault)}"
            ) from fault

    def take(self, wheel, members):
        """Subtract a wheel from the limits. Raises HostError before anything of it is written."""
        size = sum(one.file_size for one in members)
        self.bytes_left -= size
        self.files_left -= len(members)
        if self.bytes_left < 0 or self.files_left < 0:
            limits = self.release["limits"]
            what = (
                f"and the wheels before it have more than {limits['unpacked_bytes']} bytes or "
                f"{limits['unpacked_files']} files"
            )
            raise refused(self.release, wheel, what, ALLOW)
        refuse_full(self.staging, size, self.release["engine"])

    def target(self, wheel, member):
        """Path for a member of a wheel. Raises HostError if no release has such a file."""
        name, shown = member.filename, printable_line(member.filename)
        if hub_path_problem(name):
            raise refused(self.release, wheel, f"holds {shown!r}, which no release has")
        first, *parts = PurePosixPath(name).parts
        if not first.endswith(DATA):
            return self.packages / name
        scheme, rest = (parts[0], parts[1:]) if len(parts) > 1 else ("", [])
        if scheme in ("purelib", "platlib"):
            return self.packages.joinpath(*rest)
        if scheme == "scripts" and len(rest) == 1:
            return self.staging / "bin" / rest[0]
        if scheme == "data" and len(rest) > 1 and rest[0] in DATA_FOLDERS:
            return self.staging.joinpath(*rest)
        raise refused(self.release, wheel, f"holds {shown!r}, which goes elsewhere")


def is_script(name):
    parts = PurePosixPath(name).parts
    return len(parts) > 1 and parts[0].endswith(DATA) and parts[1] == "scripts"


def write(source, target, script):
    """Write a member; the release's Python replaces the placeholder in the first line of a script.

    Two wheels may contain the same file, such as the empty ``__init__.py`` of a common package.
    Raises FileExistsError if the file exists with other bytes.
    """
    start = source.readline(len(max(ANY_PYTHON, key=len))) if script else b""
    start = RELEASES_PYTHON if start in ANY_PYTHON else start
    try:
        with open(target, "xb") as file:
            file.write(start)
            shutil.copyfileobj(source, file)
    except FileExistsError:
        if not target.is_file() or not is_same(start, source, target):
            raise


def is_same(start, source, path):
    with open(path, "rb") as file:
        if file.read(len(start)) != start:
            return False
        while True:
            block = source.read(CHUNK_BYTES)
            if file.read(len(block) or 1) != block:
                return False
            if not block:
                return True


def fetch(release, wheel, path):
    """Fetch a wheel. Raises HostError unless it has the size and digest of the catalog."""
    say(f"fetching {wheel['file']} from {wheel['url']}")
    digest, left = hashlib.sha256(), wheel["size_bytes"]
    try:
        answer = urllib.request.urlopen(wheel["url"], timeout=SILENT_SECONDS)
        with answer, open(path, "xb") as file:
            while left >= 0 and (block := answer.read(CHUNK_BYTES)):
                digest.update(block)
                left -= len(block)
                file.write(block)
    except (urllib.error.URLError, TimeoutError) as fault:
        raise HostError(
            f"{release['engine']}: {wheel['url']} cannot be fetched: {printable_line(fault)}. "
            "Nothing was installed",
            "check that this host reaches it, or name another address in engine_sources of the "
            "inventory",
        ) from fault
    if left != 0 or digest.hexdigest() != wheel["sha256"]:
        raise refused(release, wheel, "has other bytes than the catalog names")


def refused(release, wheel, why, next_step=AGAIN):
    return HostError(
        f"{release['engine']}: {wheel['file']} of {wheel['url']} {why}. Nothing was installed",
        next_step,
    )
