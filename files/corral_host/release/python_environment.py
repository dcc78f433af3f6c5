"""A release that is a Python environment: this host's interpreter, and what uv installs beside it.

uv runs as the build user. Root takes over what it made, when no process of that user is left.
``bin/python`` is a copy, so that a server's program belongs to the release. pyvenv.cfg in the
folder above makes it an environment of its own at any path (PEP 405).
"""

import contextlib
import os
import shutil
import stat
from pathlib import Path

from corral_shared.names import hub_path_problem
from corral_shared.text import printable_line

from corral_host.release.build_user import (
    CLOSED,
    ENVIRONMENT,
    OPEN,
    build_home,
    build_user,
    give_tree,
)
from corral_host.release.limits import refuse_full
from corral_host.release.uv import INTERPRETER, Uv
from corral_host.release.whole import cpu
from corral_host.system.commands import HostError, output
from corral_host.system.modes import open_folder

CONFIG = "pyvenv.cfg"
# What uv puts beside the distributions; Corral needs none of it.
OF_UV = (".gitignore", ".lock", "CACHEDIR.TAG", "lib64", CONFIG)
ACTIVATE = ("activate", "activate.*", "activate_this.py", "deactivate.bat", "pydoc.bat")
ALLOW = (
    "if that is meant, raise unpacked_bytes or unpacked_files of [python] in the engine's catalog "
    "file, then run the deploy again"
)
AGAIN = "leave that distribution out (`without` of [python]), `corral lock`, run the deploy again"


def make(release, staging):
    """Make the environment in ``staging``; returns this host's versions, for the manifest."""
    version = interpreter_version(release)
    with build_home(release) as home, uv_folder(release) as folder:
        refuse_full(staging, left_to_unpack(release, folder), release["engine"])
        uv = Uv(release, folder, home)
        uv.ensure()
        give_tree(staging)
        uv.install(staging)
        uv.compile(staging, release["folder"])
    packages = staging / "lib" / f"python{release['artifact']['python']}" / "site-packages"
    clear(staging)
    take_over(release, staging)
    put_interpreter(release, staging, version)
    return {
        "python": version, "cpu": cpu(), "uv": uv.version(),
        "distributions": distributions(packages),
    }  # fmt: skip


def forget(release):
    """Remove what was fetched for a release that is installed."""
    folder = uv_path(release)
    if folder.exists():
        shutil.rmtree(folder)


def interpreter_version(release):
    program = "import platform; print(platform.python_version())"
    version = output(INTERPRETER, "-I", "-c", program).strip()
    planned = release["artifact"]["python"]
    if version.rpartition(".")[0] != planned:
        raise HostError(
            f"{INTERPRETER} is Python {version}, the plan is for {planned}",
            "correct `platform` of the host in the inventory, or `python` of it in "
            "catalog/platforms/",
        )
    return version


def uv_path(release):
    """Beside the release, so that files are linked into it and not copied."""
    return Path(release["folder"]).with_name(ENVIRONMENT + release["key"])


@contextlib.contextmanager
def uv_folder(release):
    """A folder of the build user, which builds of other engines cannot enter afterwards."""
    outer = uv_path(release)
    open_folder(outer)
    inner = outer / "work"
    for folder in (inner, inner / "tmp"):
        folder.mkdir(exist_ok=True)
    give_tree(inner)
    outer.chmod(OPEN)
    try:
        yield inner
    finally:
        outer.chmod(CLOSED)


def left_to_unpack(release, folder):
    """Bytes of the release that are not yet here."""
    sizes = (path.lstat().st_size for path in folder.rglob("*"))
    return max(0, release["limits"]["unpacked_bytes"] - sum(sizes))


def clear(staging):
    """Remove what uv adds for people who work in an environment."""
    links = [path for path in (staging / "bin").iterdir() if path.name.startswith("python")]
    for path in links:
        if path.is_symlink():
            path.unlink()
    scripts = [path for pattern in ACTIVATE for path in (staging / "bin").glob(pattern)]
    for path in (*(staging / name for name in OF_UV), *scripts):
        if path.is_symlink() or path.is_file():
            path.unlink()


def take_over(release, staging):
    """Make root the owner of each file. Raises HostError for what no release has.

    The build user, who made them, must have no process.
    """
    size = count = 0
    limits = release["limits"]
    for folder, folders, files, handle in os.fwalk(staging):
        for name in (*folders, *files):
            path = Path(folder, name)
            found = os.stat(name, dir_fd=handle, follow_symlinks=False)
            refuse_odd(release, staging, path, found)
            if stat.S_ISREG(found.st_mode):
                size, count = size + found.st_size, count + 1
            if size > limits["unpacked_bytes"] or count > limits["unpacked_files"]:
                raise refused(
                    release, f"has more than {limits['unpacked_bytes']} bytes or "
                    f"{limits['unpacked_files']} files", ALLOW,
                )  # fmt: skip
            if os.geteuid() == 0:
                os.chown(name, 0, 0, dir_fd=handle, follow_symlinks=False)
    if os.geteuid() == 0:
        os.chown(staging, 0, 0)


def refuse_odd(release, staging, path, found):
    name = str(path.relative_to(staging))
    shown = printable_line(name)
    if hub_path_problem(name):
        raise refused(release, f"has {shown!r}, a name that no release has")
    if found.st_uid != build_user():
        raise refused(release, f"has {shown}, which belongs to user {found.st_uid}")
    plain = stat.S_ISREG(found.st_mode) and path.parent != staging
    if not plain and not stat.S_ISDIR(found.st_mode):
        raise refused(release, f"has {shown}, which is not a file of one of its folders")


def put_interpreter(release, staging, version):
    """Copy the interpreter, and name the folder of its libraries."""
    try:
        with open(staging / "bin" / "python", "xb") as file, open(INTERPRETER, "rb") as source:
            shutil.copyfileobj(source, file)
    except FileExistsError as fault:
        raise refused(release, "brings a bin/python of its own") from fault
    home = os.path.dirname(INTERPRETER)
    (staging / CONFIG).write_text(
        f"home = {home}\ninclude-system-site-packages = false\nversion = {version}\n"
    )


def distributions(packages):
    """Name -> version of what is installed."""
    found = (path.name[: -len(".dist-info")] for path in packages.glob("*.dist-info"))
    return dict(sorted(name.rpartition("-")[::2] for name in found))


def refused(release, why, next_step=AGAIN):
    return HostError(
        f"{release['engine']} {release['key']}: the environment {why}. Nothing was installed",
        next_step,
    )
