"""A signed package repository of tiny packages, served over HTTP, for apt on lab hosts."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from corral.errors import CorralError
from lab.commands import run
from lab.gpus import File

KEY_FILE = "key.asc"
_WHERE = "the lab's package repository"


@dataclass(frozen=True)
class DebPackage:
    """One package: control fields beside the usual ones, files, and maintainer scripts."""

    name: str
    version: str
    fields: dict[str, str] = field(default_factory=dict)
    files: tuple[File, ...] = ()
    links: dict[str, str] = field(default_factory=dict)
    scripts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Repository:
    """A repository without suites, as NVIDIA's are; its key is beside the packages."""

    folder: Path
    fingerprint: str

    @classmethod
    def make(cls, folder: Path) -> Repository:
        """Make an empty repository with a temporary key. Needs gpg."""
        (folder / "gnupg").mkdir(parents=True, mode=0o700)
        (folder / "public").mkdir()
        _gpg(folder, "--passphrase", "", "--quick-generate-key", "Corral lab", "rsa2048", "sign")
        listed = _gpg(folder, "--with-colons", "--list-keys")
        found = re.search(r"^fpr:+([0-9A-F]{40}):", listed, re.MULTILINE)
        if not found:
            raise CorralError(_WHERE, f"gpg made no key: {listed}", "check that gpg works")
        (folder / "public" / KEY_FILE).write_text(_gpg(folder, "--armor", "--export"))
        return cls(folder, found[1])

    def publish(self, *packages: DebPackage) -> None:
        """Publish exactly these packages; earlier ones are removed."""
        public = self.folder / "public"
        for old in public.glob("*.deb"):
            old.unlink()
        index = "\n".join(_build(package, public) for package in packages)
        (public / "Packages").write_text(index)
        digest = hashlib.sha256(index.encode()).hexdigest()
        size = len(index.encode())
        release = f"Origin: Corral lab\nDate: {formatdate(usegmt=True)}\n"
        (self.folder / "Release").write_text(f"{release}SHA256:\n {digest} {size} Packages\n")
        signed = _gpg(self.folder, "--output", "-", "--clearsign", str(self.folder / "Release"))
        (public / "InRelease").write_text(signed)

    @contextmanager
    def served(self, address: str) -> Iterator[str]:
        """Serve the repository until the block ends; yields its URL."""
        handler = partial(_Quiet, directory=str(self.folder / "public"))
        with ThreadingHTTPServer((address, 0), handler) as server:
            thread = Thread(target=server.serve_forever)
            thread.start()
            try:
                yield f"http://{address}:{server.server_port}/"
            finally:
                server.shutdown()
                thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        del format, args


def _build(package: DebPackage, public: Path) -> str:
    """Write the package; returns its paragraph of the index."""
    with tempfile.TemporaryDirectory() as work:
        root = Path(work) / "root"
        control = _control(package)
        _put(root / "DEBIAN/control", control, 0o644)
        for name, text in package.scripts.items():
            _put(root / "DEBIAN" / name, text, 0o755)
        for file in package.files:
            _put(root / file.path, file.text, file.mode)
        for path, target in package.links.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).symlink_to(target)
        name = f"{package.name}_{package.version}_amd64.deb"
        run(
            ["dpkg-deb", "--root-owner-group", "-Znone", "--build", root, public / name],
            where=_WHERE,
        )
    content = (public / name).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return f"{control}Filename: ./{name}\nSize: {len(content)}\nSHA256: {digest}\n"


def _control(package: DebPackage) -> str:
    fields = {
        "Package": package.name,
        "Version": package.version,
        "Architecture": "amd64",
        "Maintainer": "Corral lab <lab@localhost>",
        "Description": "stand-in for tests",
        **package.fields,
    }
    return "".join(f"{name}: {value}\n" for name, value in fields.items())


def _put(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def _gpg(folder: Path, *arguments: str) -> str:
    # The agent's socket is in the home folder, and the path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="gpg") as home:
        shutil.copytree(folder / "gnupg", home, dirs_exist_ok=True, ignore=_sockets)
        output = run(["gpg", "--homedir", home, "--batch", "--yes", *arguments], where=_WHERE)
        run(["gpgconf", "--homedir", home, "--kill", "all"], where=_WHERE)
        shutil.copytree(home, folder / "gnupg", dirs_exist_ok=True, ignore=_sockets)
    return output


def _sockets(_: str, names: list[str]) -> set[str]:
    return {name for name in names if name.startswith("S.")}
