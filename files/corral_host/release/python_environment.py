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

from corral_shared.names import hub_path_problem
from corral_shared.text import printable_line

from corral_host.release.archive import MOST_BYTES, MOST_FILES
from corral_host.release.whole import cpu
from corral_host.system.commands import CHUNK_BYTES, HostError, output, say
from corral_host.system.modes import open_folder

INTERPRETER = "/usr/bin/python3"
SILENT_SECONDS = 60
DATA = ".data/"
AGAIN = "check the engine's wheels in the catalog, then run the deploy again"


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
    for wheel in release["wheels"]:
        add(release, wheel, packages, staging / wheel["file"])
    return found


def interpreter_version():
    program = "import platform; print(platform.python_version())"
    return output(INTERPRETER, "-I", "-c", program).strip()


def add(release, wheel, packages, path):
    try:
        fetch(release, wheel, path)
        unpack(release, wheel, path, packages)
    finally:
        path.unlink(missing_ok=True)


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


def unpack(release, wheel, path, packages):
    """Unpack a wheel's files into ``packages``. Raises HostError if one is not allowed there."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [one for one in archive.infolist() if not one.is_dir()]
            refuse_odd(release, wheel, members)
            for member in members:
                target = packages / member.filename
                open_folder(target.parent)
                with archive.open(member) as source, open(target, "xb") as file:
                    shutil.copyfileobj(source, file)
    except (zipfile.BadZipFile, FileExistsError, NotADirectoryError) as fault:
        raise refused(release, wheel, f"cannot be unpacked: {printable_line(fault)}") from fault


def refuse_odd(release, wheel, members):
    if len(members) > MOST_FILES or sum(one.file_size for one in members) > MOST_BYTES:
        raise refused(release, wheel, "holds more than any release")
    odd = next((one.filename for one in members if hub_path_problem(one.filename)), None)
    if odd is not None:
        raise refused(release, wheel, f"holds {printable_line(odd)!r}, which no release has")
    # Files for other folders than that of packages (PEP 427, "The .data directory").
    moved = next((one.filename for one in members if DATA in one.filename), None)
    if moved is not None:
        raise refused(release, wheel, f"holds {printable_line(moved)!r}, which goes elsewhere")


def refused(release, wheel, why):
    return HostError(
        f"{release['engine']}: {wheel['file']} of {wheel['url']} {why}. Nothing was installed",
        AGAIN,
    )
