"""A release as one file: equal releases give equal bytes, and only whole files are unpacked."""

import contextlib
import os
import shutil
import subprocess
import tarfile
from pathlib import Path, PurePosixPath

from corral_host.release import check_contents, describe, manifest_of
from corral_host.releases import MANIFEST, RECEIPT
from corral_host.tools import CHUNK_BYTES, HostError, read_json, say, sync

SUFFIX = ".tar.zst"
PARTIAL = ".partial"
COMPRESS = ("zstd", "--quiet", "-T0", "-9", "--stdout")
EXPAND = ("zstd", "--quiet", "--decompress", "--stdout")
MODES = {"bin": 0o755, "lib": 0o755}


def archive_path(state, key):
    return Path(state) / "archives" / f"{key}{SUFFIX}"


def pack(release):
    """Write the archive of an installed release; gives the archive and the manifest."""
    folder, manifest = Path(release["folder"]), manifest_of(release)
    check_contents(folder, manifest)
    path = archive_path(release["state"], release["key"])
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL)
    say(f"packing {folder}")
    try:
        with open(partial, "wb") as file:
            compress(folder, file)
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    sync(path.parent)
    return {"archive": {"path": str(path), **describe(path)}, "manifest": manifest}


def compress(folder, file):
    zstd = subprocess.Popen(COMPRESS, stdin=subprocess.PIPE, stdout=file, stderr=subprocess.PIPE)
    # When it stops reading, it tells why.
    with contextlib.suppress(BrokenPipeError), zstd.stdin as pipe:
        write_tar(folder, pipe)
    said = zstd.stderr.read()
    zstd.stderr.close()
    zstd.wait()
    check(zstd, said, f"packing {folder}")


def write_tar(folder, pipe):
    """A fixed format, and nothing of a file but its name, size and bytes."""
    with tarfile.open(fileobj=pipe, mode="w|", format=tarfile.USTAR_FORMAT) as tar:
        for name in members(folder):
            add(tar, folder, name)


def members(folder):
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [str(path.relative_to(folder)) for path in paths if path.name != RECEIPT]


def add(tar, folder, name):
    entry = tarfile.TarInfo(name)
    entry.size = (folder / name).stat().st_size
    entry.mode = MODES.get(PurePosixPath(name).parts[0], 0o644)
    with open(folder / name, "rb") as file:
        tar.addfile(entry, file)


def unpack(release, staging):
    """Unpack an archive whose digest is the planned one; gives its manifest."""
    path = release["archive"]["path"]
    zstd = subprocess.Popen([*EXPAND, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        with zstd.stdout as pipe, tarfile.open(fileobj=pipe, mode="r|") as tar:
            for entry in tar:
                take(tar, entry, staging)
            # Its padding too: zstd fails when nobody reads what it writes.
            while pipe.read(CHUNK_BYTES):
                pass
    except tarfile.TarError as error:
        raise HostError(f"{path} is no archive of a release: {error}") from error
    finally:
        zstd.stdout.close()
        said = zstd.communicate()[1]
    check(zstd, said, f"unpacking {path}")
    return read_manifest(release, staging)


def take(tar, entry, staging):
    """One plain file; a release holds nothing else, and nothing outside of its folder."""
    name = PurePosixPath(entry.name)
    if not entry.isreg() or name.is_absolute() or ".." in name.parts:
        raise tarfile.TarError(f"{entry.name} is not a plain file inside of it")
    path = staging / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with tar.extractfile(entry) as source, open(path, "xb") as target:
        shutil.copyfileobj(source, target)
    path.chmod(MODES.get(name.parts[0], 0o644))


def read_manifest(release, staging):
    manifest = read_json(staging / MANIFEST) or {}
    wanted = {name: release[name] for name in ("engine", "key", "commit")}
    if {name: manifest.get(name) for name in wanted} != wanted:
        raise HostError(
            f"{release['archive']['path']} holds another release than {release['engine']} "
            f"{release['key']}. Next: `corral engine import` the right one, or build it"
        )
    check_contents(staging, manifest)
    return manifest


def check(zstd, said, doing):
    if zstd.returncode != 0:
        reason = said.decode(errors="replace").strip()
        raise HostError(f"{doing} failed: {reason}. Next: see that there is room, run it again")
