"""Apptainer: the main process of a unit is the starter, and the server is another one of it.

The starter keeps the image open while it runs; squashfuse serves the image's files to the server.
Measured with apptainer 1.4.5.
"""

import contextlib
import functools
import os
from pathlib import Path

from corral_host.runtimes.base import Runtime
from corral_host.runtimes.images import is_as_installed
from corral_host.server.listener import processes_of
from corral_host.system.commands import read_json, sha256_of

MOUNTERS = ("squashfuse", "squashfuse_ll")


class Apptainer(Runtime):
    """See corral_host.runtimes.base."""

    kind = "apptainer"
    images = True
    # Those that --cleanenv lets through (APPTAINERENV_LD_PRELOAD), and those of options
    # (APPTAINER_BIND); apptainer reads the names of SingularityCE, too.
    variables = ("APPTAINER", "SINGULARITY")

    def server_pid(self, instance, main):
        """The process of the unit with the server's command line; the starter's while none has."""
        argv = list(instance["argv"])
        found = (pid for pid in sorted(processes_of(instance["unit"])) if arguments(pid) == argv)
        return next(found, main)

    def is_planned(self, instance, pid):
        """In an image its path may be a link, so that the name alone is compared."""
        program = os.readlink(f"/proc/{pid}/exe")
        return os.path.basename(program) == os.path.basename(instance["argv"][0])

    def is_replaced(self, instance, main):
        """Whether the image was written, or is another file than the starter has open."""
        image = instance["runtime"]["image"]
        if not is_as_installed(image):
            return True
        held = open_files(main, os.path.basename(image))
        return bool(held) and identity(image) not in held

    def image_problem(self, instance, main):
        """By its bytes, by the file that is open, and by who serves its files."""
        image = instance["runtime"]["image"]
        manifest = read_json(Path(image).with_name("manifest.json")) or {"files": {}}
        planned = manifest["files"].get(os.path.basename(image), {}).get("sha256")
        if not os.path.exists(image):
            return f"{image} was removed since the server started"
        found = digest(image)
        if found != planned:
            return f"{image} has sha256 {found[:16]}..., its release {str(planned)[:16]}..."
        if self.is_replaced(instance, main):
            return f"{image} was replaced since the server started"
        programs = {program(pid) for pid in processes_of(instance["unit"])}
        if not instance["runtime"]["unpacks"] and not programs & {*MOUNTERS}:
            return "squashfuse, which serves the image's files, has ended"
        return ""


@functools.cache
def digest(image):
    """The digest of a file, read once by each run of the helper."""
    return sha256_of(image)


def arguments(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    return []


def program(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    return ""


def identity(path):
    found = os.stat(path)
    return found.st_dev, found.st_ino


def open_files(pid, name):
    """Identities of the files called ``name`` that a process has open, removed ones too."""
    found = set()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for handle in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                link = f"/proc/{pid}/fd/{handle}"
                if os.path.basename(os.readlink(link)).partition(" (deleted)")[0] == name:
                    found.add(identity(link))
    return found
