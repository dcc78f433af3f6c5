"""Packages of a distribution with all that they depend on, as a signed repository.

apt itself decides, in a root of its own with nothing installed in it: whatever a host already has,
the same release of its distribution has the rest. Hosts check the signature, whose public key gets
to them by ssh, so that nobody on the way needs to be trusted.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from urllib.parse import unquote

from corral_shared.pins import fits

from corral.catalog.drivers import AptSource
from corral.errors import CorralError
from corral.files import make_folder, writing
from corral.nvidia.apt import pin_text, sources_text
from corral.offline.folder import FREE_SPACE, BundleFolder
from corral.offline.manifest import BundleFile
from corral.offline.needs import PackageSet
from corral.offline.programs import run, this_platform

INDEX, RELEASE = "Packages", "InRelease"
# Of the host's own kernel, C library and service manager there is always one.
_ESSENTIAL = "?essential"
_URI = re.compile(r"^'(?P<uri>[^']+)' (?P<file>\S+_\S+_\S+\.deb) (?P<size>[0-9]+) ", re.MULTILINE)
_FINGERPRINT = re.compile(r"^fpr:+([0-9A-F]{40}):", re.MULTILINE)
_KEY_SECONDS = 30
_MOST_KEY_BYTES = 1024**2
_KEPT = "what is there already is kept; then run the same command again"


@dataclass(frozen=True)
class Deb:
    """A package as apt chose it; ``file``: its name in the repository, without an epoch."""

    name: str
    version: str
    architecture: str
    size_bytes: int

    @property
    def file(self) -> str:
        """An address with a colon would be quoted, by some versions of apt twice."""
        return f"{self.name}_{self.version.rpartition(':')[2]}_{self.architecture}.deb"


class AptRoot:
    """apt for one platform, with package sources, state and cache of its own.

    + folder: for its files; + sources: a file of sources.list(5); None: this controller's own
    """

    def __init__(self, platform: str, folder: Path, sources: Path | None) -> None:
        if sources is None and platform != this_platform():
            what = f"packages of {platform} are needed, and this controller is {this_platform()}"
            step = (
                f"copy the package sources of such a host here, and name them with "
                f"--sources {platform}=FILE"
            )
            raise CorralError("corral bundle", what, step)
        if sources is not None and not sources.is_file():
            what = f"there are no package sources of {platform}"
            raise CorralError(str(sources), what, f"--sources {platform}=FILE")
        self.platform, self.folder, self._sources = platform, folder, sources

    def resolve(self, wanted: PackageSet) -> list[Deb]:
        """What has to be downloaded for some packages. Raises CorralError with apt's reason."""
        root = self.folder / _digest(wanted)
        options = self._options(root, wanted)
        if not (root / "updated").is_file():
            self._apt(root, ["apt-get", *options, "--error-on=any", "update"])
            (root / "updated").touch()
        install = ["install", "--print-uris", "--yes", "--no-install-recommends"]
        text = self._apt(root, ["apt-get", *options, *install, *wanted.packages, _ESSENTIAL])
        debs = [_deb(found["file"], int(found["size"])) for found in _URI.finditer(text)]
        self._refuse_other_versions(debs, wanted)
        return debs

    def _refuse_other_versions(self, debs: Sequence[Deb], wanted: PackageSet) -> None:
        """apt takes another version where the pinned one is not offered."""
        versions = {name: one.version for one in wanted.pins for name in one.packages}
        for deb in debs:
            pinned = versions.get(deb.name, "*")
            if not fits(deb.version, pinned):
                what = (
                    f"{deb.name} {pinned} is pinned in {wanted.catalog}, and the package sources "
                    f"have {deb.version}"
                )
                step = "add a repository that has it to them, or name it in [source] of that file"
                raise CorralError(f"packages of {self.platform}", what, step)

    def download(self, debs: Sequence[Deb], wanted: PackageSet, folder: Path) -> None:
        """Download packages into a folder, proved by apt against its signed indexes."""
        make_folder(folder, next_step=FREE_SPACE)
        root = self.folder / _digest(wanted)
        named = [f"{deb.name}:{deb.architecture}={deb.version}" if deb.architecture != "all"
                 else f"{deb.name}={deb.version}" for deb in debs]  # fmt: skip
        self._apt(root, ["apt-get", *self._options(root, wanted), "download", *named], folder)

    def _apt(self, root: Path, command: list[str], folder: Path | None = None) -> str:
        step = f"check the package sources (`apt-get update`), and that the disk has room; {_KEPT}"
        return run(
            command, where=f"packages of {self.platform}", next_step=step, folder=folder or root
        )

    def _options(self, root: Path, wanted: PackageSet) -> list[str]:
        """A root with nothing installed, made on first use."""
        for name in ("lists/partial", "cache/archives/partial", "sources.d", "preferences.d"):
            make_folder(root / name, next_step=FREE_SPACE)
        with writing(root, next_step=FREE_SPACE):
            (root / "status").touch()
            (root / "preferences").write_text("\n".join(map(pin_text, wanted.pins)))
            if wanted.source:
                _add(wanted.source, root)
            if self._sources:
                suffix = ".sources" if _is_deb822(self._sources) else ".list"
                shutil.copyfile(self._sources, root / "sources.d" / f"platform{suffix}")
        # Its own sources beside the added one: each of this controller's files.
        own = [] if self._sources else _own_sources()
        for path in own:
            shutil.copyfile(path, root / "sources.d" / path.name)
        settings = {
            "Dir::State": root, "Dir::State::lists": root / "lists",
            "Dir::State::status": root / "status", "Dir::Cache": root / "cache",
            "Dir::Etc::sourcelist": "-", "Dir::Etc::sourceparts": root / "sources.d",
            "Dir::Etc::preferences": root / "preferences",
            "Dir::Etc::preferencesparts": root / "preferences.d",
            "APT::Architecture": "amd64", "APT::Architectures": "amd64",
            "APT::Sandbox::User": "root", "APT::Get::AllowUnauthenticated": "false",
            "APT::Update::Post-Invoke-Success": "", "APT::Update::Post-Invoke": "",
            "Acquire::Languages": "none", "Acquire::Retries": "3",
        }  # fmt: skip
        return [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]


def add_packages(
    folder: BundleFolder, root: AptRoot, sets: Sequence[PackageSet], earlier: Mapping[str, int]
) -> dict[str, Deb]:
    """Download what the sets need into a bundle; returns the name in the bundle -> package.

    + earlier: name -> size of packages that the bundle has which this one adds to
    """
    found: dict[str, Deb] = {}
    for wanted in sets:
        debs = {f"apt/{root.platform}/{deb.file}": deb for deb in root.resolve(wanted)}
        missing = {
            name: deb
            for name, deb in debs.items()
            if earlier.get(name) != deb.size_bytes and not folder.known(name)
        }
        folder.refuse_small(sum(deb.size_bytes for deb in missing.values()))
        if missing:
            incoming = folder.work / "debs"
            root.download(list(missing.values()), wanted, incoming)
            _take(folder, missing, incoming)
        found |= debs
    return found


def _take(folder: BundleFolder, missing: dict[str, Deb], incoming: Path) -> None:
    by_file = {_deb(path.name, path.stat().st_size).file: path for path in incoming.glob("*.deb")}
    for name, deb in missing.items():
        path = by_file.get(deb.file)
        if path is None:
            raise CorralError(deb.file, "apt did not download it", "run the same command again")
        path.replace(folder.partial(name))
        folder.finish(name)


def add_index(folder: BundleFolder, platform: str, names: Iterable[str], signer: Signer) -> None:
    """Write and sign the index of a platform's packages, which are in the bundle or an earlier one.

    + names: packages -> their control paragraphs
    """
    index = "\n".join(sorted(names))
    folder.write(f"apt/{platform}/{INDEX}", index.encode())
    digest = hashlib.sha256(index.encode()).hexdigest()
    release = (
        f"Origin: Corral\nLabel: bundle\nDate: {formatdate(usegmt=True)}\n"
        f"SHA256:\n {digest} {len(index.encode())} {INDEX}\n"
    )
    folder.write(f"apt/{platform}/{RELEASE}", signer.sign(release).encode())


def paragraph(path: Path, file: BundleFile) -> str:
    """A package's paragraph of the index."""
    step = "run the same command again"
    control = run(["dpkg-deb", "--field", str(path)], where=file.name, next_step=step)
    name = file.name.rpartition("/")[2]
    return (
        f"{control.strip()}\nFilename: ./{name}\nSize: {file.size_bytes}\nSHA256: {file.sha256}\n"
    )


class Signer:
    """A key for the package repositories of one bundle; its secret part is nowhere kept."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._gpg("--passphrase", "", "--quick-generate-key", "Corral bundle", "ed25519", "sign",
                  "never")  # fmt: skip
        self.public_key = self._gpg("--armor", "--export")

    def sign(self, text: str) -> str:
        """A text with its signature."""
        return self._gpg("--armor", "--clearsign", stdin=text)

    def close(self) -> None:
        """End the agent that gpg started."""
        run(["gpgconf", "--homedir", str(self._home), "--kill", "all"], where="gpg", next_step="")

    def _gpg(self, *arguments: str, stdin: str = "") -> str:
        command = ["gpg", "--homedir", str(self._home), "--batch", "--yes", "--no-tty", *arguments]
        return run(command, where="gpg", next_step="apt-get install gnupg", stdin=stdin)


def _add(source: AptSource, root: Path) -> None:
    """Add a repository of the catalog's to a root."""
    if source.uri is None:
        # Components of the distribution's own: the package sources must have them.
        return
    key = source.keyring or str(_fetched_key(source, root / "added.asc"))
    (root / "sources.d" / "added.sources").write_text(sources_text(source, key))


def _fetched_key(source: AptSource, path: Path) -> Path:
    """The key of such a repository, if it is the one that the catalog names."""
    from httpx2 import Client, HTTPError, InvalidURL

    from corral.sources.hub_requests import answer, read_body

    url = str(source.key_url)
    try:
        with Client(timeout=_KEY_SECONDS) as client, answer(client, url, {}) as response:
            response.raise_for_status()
            data = read_body(response, most_bytes=_MOST_KEY_BYTES, most_seconds=_KEY_SECONDS)
    except (HTTPError, InvalidURL, ValueError) as error:
        raise CorralError(
            url, f"cannot be fetched: {error}", f"check the network; {_KEPT}"
        ) from error
    path.write_bytes(data)
    with tempfile.TemporaryDirectory(prefix="gpg") as home:
        command = ["gpg", "--homedir", home, "--batch", "--with-colons", "--show-keys", str(path)]
        listed = run(command, where=url, next_step="check the URL of the key")
    found = _FINGERPRINT.findall(listed)
    if found[:1] != [source.key_fingerprint] or listed.count("pub:") != 1:
        what = f"holds the key {', '.join(found[:1]) or 'of nobody'}, not {source.key_fingerprint}"
        raise CorralError(url, what, "ask its publisher which is right")
    return path


def _own_sources() -> list[Path]:
    """This controller's own package sources."""
    apt = Path("/etc/apt")
    parts = apt / "sources.list.d"
    found = [apt / "sources.list", *parts.glob("*.list"), *parts.glob("*.sources")]
    return [path for path in found if path.is_file()]


def _is_deb822(path: Path) -> bool:
    return bool(re.search(r"^Types:", path.read_text(), re.MULTILINE | re.IGNORECASE))


def _deb(file: str, size_bytes: int) -> Deb:
    """From apt's own name of a file, such as ``g++_4%3a12.2.0-3_amd64.deb``."""
    name, version, rest = unquote(file).rsplit("_", 2)
    return Deb(name, version, rest.removesuffix(".deb"), size_bytes)


def _digest(wanted: PackageSet) -> str:
    """Of what sets have in common that share a root."""
    parts = (one.model_dump_json() for one in (*wanted.pins, wanted.source) if one)
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:12]
