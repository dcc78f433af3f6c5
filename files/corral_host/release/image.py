"""Releases that are images: made here of another release, or files of the site's own.

A made image is a reproducible squashfs: the same release and the same packages give the same bytes.
It holds the release in the folder that the image itself is in, so that a program has one path
inside and outside: outside it is a launcher, which runs the program of that name in the image.
"""

import shutil
import subprocess
import time
from pathlib import Path

from corral_shared.text import printable_line

from corral_host import engines
from corral_host.release import root_files
from corral_host.release.launchers import write_launchers
from corral_host.release.locks import compiling
from corral_host.release.programs import ask, bare_environment
from corral_host.release.releases import MANIFEST, RECEIPT
from corral_host.release.whole import cpu, release_is_whole
from corral_host.system.commands import (
    HostError,
    disk_full,
    output,
    read_json,
    say,
    sha256_of,
)
from corral_host.system.folders import staging_for

# As mksquashfs 4.5 and later: no dates, no owners, no order of the disk, no attributes of files.
SQUASH = (
    "-reproducible", "-all-time", "0", "-mkfs-time", "0", "-all-root", "-no-xattrs",
    "-noappend", "-no-progress", "-quiet",
)  # fmt: skip
FETCH_LIMIT_SECONDS = 4 * 3600
# Exit codes of curl. By --max-filesize it ends before the file arrives, or while it does.
CURL_TOO_LARGE, CURL_NOT_WRITTEN = 63, 23


def make_image(release, build_release, install_proved):
    """Make an image of the release in it, which is built or taken from its folder.

    ``build_release``, ``install_proved``: of corral_host.release.build.
    """
    began, artifact = time.monotonic(), release["artifact"]
    inside = {**beside(release), **artifact["of"]}
    if not release_is_whole(inside):
        with compiling(inside):
            build_release(inside)
    with staging_for(Path(release["folder"])) as staging:
        packages = squash(release, staging / artifact["image"])
        programs = sorted(path.name for path in (Path(inside["folder"]) / "bin").iterdir())
        paths = {name: f"{release['folder']}/bin/{name}" for name in programs}
        write_launchers(staging, artifact["image"], paths)
        known = read_json(Path(inside["folder"]) / MANIFEST)
        found = {**known["found"], "packages": packages}
        install_proved(release, staging, found, began, flags=known["flags"])


def squash(release, image):
    """Write the image's file; returns name -> version of the packages in it."""
    root = image.with_name("root")
    packages = root_files.make(root, release["artifact"]["contents"])
    inside = Path(release["artifact"]["of"]["folder"])
    put_release(inside, root / Path(release["folder"]).relative_to("/"))
    root_files.normalize(root)
    say("packing the image")
    compression = ("-comp", release["artifact"]["compression"])
    output("mksquashfs", str(root), str(image), *SQUASH, *compression)
    shutil.rmtree(root)
    return packages


def beside(release):
    """What a job says about releases in general, for the release in an image."""
    return {name: release[name] for name in ("compiler_cache", "state", "smoke_model")}


def put_release(folder, target):
    """Copy a release without its own records, which differ from host to host."""
    skipped = shutil.ignore_patterns(MANIFEST, RECEIPT)
    shutil.copytree(folder, target, symlinks=True, ignore=skipped)


def own_image(release, install_proved):
    """Install an image of the site's own: copied or fetched, and proved by its digest."""
    began, artifact = time.monotonic(), release["artifact"]
    with staging_for(Path(release["folder"])) as staging:
        image = staging / artifact["image"]
        obtain(release, image)
        found = sha256_of(image)
        if found != artifact["sha256"]:
            raise HostError(
                f"{artifact['source']} has sha256 {found[:16]}..., corral.lock has "
                f"{artifact['sha256'][:16]}.... Nothing was installed",
                "put the locked file there; or, if the new one is wanted, change its sha256 in the "
                "catalog and run `corral lock`",
            )
        write_launchers(staging, artifact["image"], own_programs(release, staging))
        install_proved(release, staging, {"cpu": cpu()}, began)


def obtain(release, image):
    """Copy the site's file; it may change later. From a URL it is fetched."""
    source, most = release["artifact"]["source"], release["limits"]["unpacked_bytes"]
    if source.startswith("/"):
        refuse_absent(Path(source), most)
        say(f"copying {source}")
        output("cp", "--reflink=auto", "--sparse=auto", "--", source, str(image))
    else:
        fetch(source, image, most)
    if image.stat().st_size > most:
        raise too_large(source, most)
    image.chmod(0o644)


def fetch(source, image, most):
    say(f"fetching {source}")
    command = ("curl", "--fail", "--silent", "--show-error", "--location", "--retry", "3")
    limits = ("--max-filesize", str(most), "--max-time", str(FETCH_LIMIT_SECONDS))
    done = subprocess.run(
        [*command, *limits, "--output", str(image), "--", source],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
    )  # fmt: skip
    if done.returncode == CURL_TOO_LARGE:
        raise too_large(source, most)
    if done.returncode == CURL_NOT_WRITTEN:
        raise disk_full(image.parent)
    if done.returncode != 0:
        reason = printable_line(done.stderr.strip().rpartition("\n")[2])
        raise HostError(
            f"{source} cannot be fetched: {reason}. Nothing was installed",
            "check that this host reaches it, run the deploy again",
        )


def refuse_absent(path, most):
    if not path.is_file():
        raise HostError(
            f"{path}, an image of the site's own, is not on this host",
            "put it there (or name a URL in the catalog), run the deploy again",
        )
    if path.stat().st_size > most:
        raise too_large(path, most)


def too_large(source, most):
    step = "raise most_bytes of its image, or name another file"
    return HostError(f"{source} is larger than {most >> 30} GiB", step)


def own_programs(release, staging):
    """Name -> path in the image, of the server and of other programs that are there."""
    server = Path(release["artifact"]["program"])
    found = {server.name: str(server)}
    names = [name for name in engines.of(release).tools if name != server.name]
    everyone = {name: str(server.with_name(name)) for name in names}
    write_launchers(staging, release["artifact"]["image"], {**found, **everyone})
    with bare_environment((), release) as environment:
        for name, path in everyone.items():
            if ask(staging / "bin" / name, ["--version"], environment)[1] == 0:
                found[name] = path
    shutil.rmtree(staging / "bin")
    return found
