"""A release as one archive: packed where it was built, proved and installed on another host.

Equal releases give equal bytes, and only whole files are unpacked.
"""

import contextlib
import os
import subprocess
import tarfile
from pathlib import Path, PurePosixPath

from corral_shared.names import PATH_BYTES, hub_path_problem
from corral_shared.text import printable_line

from corral_host.release.limits import refuse_full
from corral_host.release.locks import changing_releases
from corral_host.release.manifest import check_contents, describe, finish, manifest_of, prove
from corral_host.release.releases import MANIFEST, RECEIPT
from corral_host.release.whole import release_is_whole, suits_this_cpu
from corral_host.system.commands import (
    CHUNK_BYTES,
    PROGRESS_BYTES,
    HostError,
    read_json,
    rename,
    say,
)
from corral_host.system.folders import staging_for

SUFFIX = ".tar.zst"
PARTIAL = ".partial"
COMPRESS = ("zstd", "--quiet", "-T0", "--stdout")
# Kind of artifact -> level. The gigabytes of an environment are packed beside servers: level 9
# takes several times as long as level 3, for a few percent.
# An image is compressed already.
LEVELS = {
    "cmake-build": "-9", "python-environment": "-3", "made-image": "-1", "own-image": "-1",
}  # fmt: skip
EXPAND = ("zstd", "--quiet", "--decompress", "--stdout")
ROOM = "check the free space, run it again"
# The manifest of a large Python environment (60,000 files) has about 15 MB.
MANIFEST_BYTES = 64 * 1024**2
PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE)
MODES = {"bin": 0o755, "lib": 0o755}


def archive_path(state, key):
    return Path(state) / "archives" / f"{key}{SUFFIX}"


def pack(release):
    """Write the archive of an installed release; returns the archive and the manifest."""
    folder, manifest = Path(release["folder"]), manifest_of(release)
    check_contents(folder, manifest)
    path = archive_path(release["state"], release["key"])
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL)
    say(f"packing {folder}")
    try:
        with open(partial, "wb") as file:
            compress(folder, file, LEVELS[release["artifact"]["kind"]])
            os.fsync(file.fileno())
        rename(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return {"archive": {"path": str(path), **describe(path)}, "manifest": manifest}


def compress(folder, file, level):
    command = (*COMPRESS, level)
    zstd = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file, stderr=subprocess.PIPE)
    # If zstd stops reading, its standard error says why.
    with contextlib.suppress(BrokenPipeError), zstd.stdin as pipe:
        write_tar(folder, pipe)
    said = zstd.stderr.read()
    zstd.stderr.close()
    zstd.wait()
    check(zstd, said, f"packing {folder}")


def write_tar(folder, pipe):
    """Write a tar of a fixed format, with only the name, size and bytes of each file."""
    with tarfile.open(fileobj=pipe, mode="w|", format=tarfile.USTAR_FORMAT) as tar:
        done = 0
        for name in members(folder):
            size = add(tar, folder, name)
            say_progress(done, done + size, "packed")
            done += size


def members(folder):
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [str(path.relative_to(folder)) for path in paths if path.name != RECEIPT]


def add(tar, folder, name):
    entry = tarfile.TarInfo(name)
    entry.size = (folder / name).stat().st_size
    entry.mode = MODES.get(PurePosixPath(name).parts[0], 0o644)
    tar.format = tarfile.USTAR_FORMAT if fits(entry) else tarfile.GNU_FORMAT
    with open(folder / name, "rb") as file:
        tar.addfile(entry, file)
    return entry.size


def say_progress(before, after, what):
    """Say how much is done, for every so many bytes."""
    if before // PROGRESS_BYTES < after // PROGRESS_BYTES:
        say(f"{after >> 20} MiB are {what}")


def fits(entry):
    """Whether a ustar header can hold the name; names of GPU kernels exceed 100 characters."""
    try:
        entry.tobuf(tarfile.USTAR_FORMAT)
    except ValueError:
        return False
    return True


def install(release):
    """Install an archive: check its digest, unpack it, prove that it works here, rename it.

    The archive is removed afterwards, unless the disk was too full to unpack it.
    """
    with changing_releases(release):
        if not release_is_whole(release):
            check_digest(release["archive"])
            install_archive(release)
        Path(release["archive"]["path"]).unlink(missing_ok=True)
        return {"manifest": manifest_of(release)}


def check_digest(archive):
    path, wanted = Path(archive["path"]), {n: archive[n] for n in ("size_bytes", "sha256")}
    found = describe(path)
    if found != wanted:
        path.unlink()
        raise HostError(
            f"{path.name}: {found['size_bytes']} bytes with sha256 {found['sha256'][:16]}... "
            f"arrived, not {wanted['size_bytes']} with {wanted['sha256'][:16]}.... It was removed, "
            "nothing was installed",
            "run the deploy again; if it repeats, the controller's archive is damaged: "
            "`corral engine list` names it",
        )


def install_archive(release):
    with staging_for(Path(release["folder"])) as staging:
        manifest = unpack(release, staging)
        if release["native"] and not suits_this_cpu(manifest):
            raise HostError(
                f"{release['engine']} {release['key']} was built for a processor with features "
                f"that this one lacks ({manifest['found']['cpu']['model']})",
                "build it here, or portable",
            )
        finish(release, staging, manifest, prove(release, staging))


def unpack(release, staging):
    """Unpack an archive that has the planned digest; returns its manifest.

    The digest proves that it is the planned archive, not that its contents are harmless.
    """
    path = release["archive"]["path"]
    most_bytes = room_for(release, staging)
    zstd = subprocess.Popen([*EXPAND, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        with zstd.stdout as pipe:
            take_all(pipe, staging, most_bytes, release["limits"]["unpacked_files"])
    except (tarfile.TarError, ValueError) as error:
        raise HostError(
            f"{path} is not an archive of a release: {printable_line(error)}",
            "`corral engine import` a sound one, or build it",
        ) from error
    except OSError as error:
        raise HostError(f"unpacking {path} failed: {error.strerror}", ROOM) from error
    finally:
        zstd.stdout.close()
        said = zstd.communicate()[1]
    check(zstd, said, f"unpacking {path}")
    return read_manifest(release, staging)


def room_for(release, staging):
    """How many bytes may be unpacked: the controller's figure, plus those of the manifest.

    Raises HostError if the disk has less.
    """
    stated = release["archive"].get("unpacked_bytes") or 0
    most = release["limits"]["unpacked_bytes"]
    refuse_full(staging, stated, f"{release['engine']} {release['key']}")
    return min(stated or most, most) + MANIFEST_BYTES


def take_all(pipe, staging, most_bytes, most_files):
    """Unpack each member of a tar made by ``write_tar``; anything else is a TarError.

    Headers are read one by one: tarfile's own loop would follow extended headers, which may claim
    any size and name, before they could be checked.
    """
    left, taken = most_bytes, 0
    while (header := read_exactly(pipe, tarfile.BLOCKSIZE)) != bytes(tarfile.BLOCKSIZE):
        entry = member(pipe, header)
        refuse_odd(entry)
        if taken >= most_files:
            raise tarfile.TarError(f"it has more than {most_files} files")
        left -= entry.size
        if left < 0:
            raise tarfile.TarError("it holds more than its manifest says")
        take(pipe, entry, staging)
        say_progress(most_bytes - left - entry.size, most_bytes - left, "unpacked")
        taken += 1
    # Read the padding too: zstd fails if nobody reads its output.
    for _ in range(tarfile.RECORDSIZE // tarfile.BLOCKSIZE):
        if not pipe.read(tarfile.BLOCKSIZE):
            return
    raise tarfile.TarError("something follows its end")


def member(pipe, header):
    """The member that a header describes.

    A name that is too long for a header comes before it, in blocks of its own. It may be no longer
    than a path, whatever its size says.
    """
    entry = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
    if entry.type != tarfile.GNUTYPE_LONGNAME:
        return entry
    if not 0 < entry.size <= PATH_BYTES + 1:
        raise tarfile.TarError("a name in it is longer than any")
    name = read_exactly(pipe, entry.size).rstrip(b"\0").decode("utf-8")
    read_exactly(pipe, -entry.size % tarfile.BLOCKSIZE)
    header = read_exactly(pipe, tarfile.BLOCKSIZE)
    entry = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
    entry.name = name
    return entry


def refuse_odd(entry):
    """Raises TarError for anything that is not a plain file inside the release's folder."""
    shown = printable_line(entry.name)
    if entry.type not in PLAIN or entry.size < 0 or hub_path_problem(entry.name):
        raise tarfile.TarError(f"{shown} is not a plain file inside of it")
    if entry.name == MANIFEST and entry.size > MANIFEST_BYTES:
        raise tarfile.TarError("its manifest is larger than any")


def take(pipe, entry, staging):
    """Unpack one file; the archive decides neither owner nor mode (think of setuid bits)."""
    path, left = staging / entry.name, entry.size
    with new_file(path) as target:
        while left:
            block = read_exactly(pipe, min(left, CHUNK_BYTES))
            target.write(block)
            left -= len(block)
    read_exactly(pipe, -entry.size % tarfile.BLOCKSIZE)
    path.chmod(MODES.get(PurePosixPath(entry.name).parts[0], 0o644))


def new_file(path):
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "xb")
    except (FileExistsError, NotADirectoryError) as error:
        raise tarfile.TarError(f"{path.name} is in it twice") from error


def read_exactly(pipe, size):
    block = pipe.read(size)
    if len(block) != size:
        raise tarfile.TarError("it is cut off")
    return block


def read_manifest(release, staging):
    try:
        manifest = read_json(staging / MANIFEST)
    except (ValueError, RecursionError):
        manifest = None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        manifest = {}
    wanted = {name: release[name] for name in ("engine", "key", "commit")}
    if {name: manifest.get(name) for name in wanted} != wanted:
        raise HostError(
            f"{release['archive']['path']} holds another release than {release['engine']} "
            f"{release['key']}",
            "`corral engine import` the right one, or build it",
        )
    check_contents(staging, manifest)
    return manifest


def check(zstd, said, doing):
    if zstd.returncode != 0:
        reason = said.decode(errors="replace").strip()
        raise HostError(f"{doing} failed: {reason}", ROOM)
