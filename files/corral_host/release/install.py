"""Install a release that another host built: proved bytes, proved to work here, one rename."""

from pathlib import Path

from corral_host.release.archive import unpack
from corral_host.release.manifest import describe, finish, manifest_of, prove
from corral_host.release.whole import release_is_whole, suits_this_cpu
from corral_host.system.commands import HostError
from corral_host.system.folders import staging_for
from corral_host.system.locks import changing_releases


def install(release):
    """The archive is gone afterwards, unless there was no room for what is in it."""
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
            "nothing was installed. Next: run the deploy again; if it repeats, the archive that "
            "the controller keeps is damaged: `corral engine list` names it"
        )


def install_archive(release):
    with staging_for(Path(release["folder"])) as staging:
        manifest = unpack(release, staging)
        if release["native"] and not suits_this_cpu(manifest):
            raise HostError(
                f"{release['engine']} {release['key']} was built for a processor with features "
                f"that this one lacks ({manifest['found']['cpu']['model']}). "
                "Next: build it here, or portable"
            )
        finish(release, staging, manifest, prove(release, staging))
