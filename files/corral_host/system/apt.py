"""apt: packages in pinned versions, and keys of repositories."""

import os
import tempfile
from pathlib import Path

from corral_shared.pins import fits

from corral_host.system.commands import HostError, loud, output, write_atomic
from corral_host.system.kernel import run
from corral_host.system.openpgp import MOST_BYTES, checked_key

OPTIONS = (
    "-o", "DPkg::Lock::Timeout=300",
    "-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold",
)  # fmt: skip


def apt_get(command, *arguments):
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    loud("apt-get", command, "-y", *OPTIONS, *arguments, env=environment)


def fetch_key(url, wanted, target, catalog):
    """Fetch a repository's key with apt's helper, so that apt's proxy and certificates apply.

    It is kept if it has the wanted fingerprint, which is pinned in ``catalog``. apt trusts whatever
    is in ``target``, so that gets the text made from the checked packets.
    """
    data = download(url)
    try:
        found, text = checked_key(data)
    except HostError as error:
        raise HostError(f"{url}: {error}") from error
    if found != wanted:
        raise HostError(
            f"{url} holds the key {found}, not {wanted}",
            f"ask its publisher which is right; the pinned one is key_fingerprint in {catalog}",
        )
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, text)


def download(url):
    """The bytes at an address, limited to more than any key has: an answer may be endless."""
    limited = ("prlimit", f"--fsize={MOST_BYTES}", "/usr/lib/apt/apt-helper")
    with tempfile.TemporaryDirectory() as folder:
        fetched = Path(folder) / "key"
        try:
            loud(*limited, "download-file", url, fetched)
        except HostError as error:
            raise HostError(
                f"{url}: {error} (a key has {MOST_BYTES} bytes at most)",
                "check that the host reaches it, then run the same deploy again",
            ) from error
        with open(fetched, "rb") as file:
            return file.read(MOST_BYTES + 1)


def refuse_another(name, pinned, catalog):
    """Raises HostError if apt would not install the pinned version, as no source has it."""
    lines = output("apt-cache", "policy", name).splitlines()
    pairs = [line.split() for line in lines]
    candidate = next((p[1] for p in pairs if len(p) == 2 and p[0] == "Candidate:"), "(none)")
    if not fits(candidate, pinned):
        there = available(name)
        listed = f"versions {', '.join(there)}" if there else f"{candidate}, no version of it"
        raise HostError(
            f"{name} {pinned} is pinned, the host's package sources have {listed}",
            f"pin a version that they have in {catalog}, or correct the package sources",
        )


def available(name):
    """Versions of a package in the host's package sources, newest first."""
    rows = [line.split("|") for line in run("apt-cache", "madison", name).stdout.splitlines()]
    return list(dict.fromkeys(row[1].strip() for row in rows if len(row) == 3))


def installed_version(name):
    """The version of a package that is installed whole; None if it is not."""
    form = "--showformat=${db:Status-Status} ${Version}"
    status, _, version = run("dpkg-query", "--show", form, name).stdout.partition(" ")
    return version if status == "installed" else None
