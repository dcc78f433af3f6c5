"""`corral bundle -o FOLDER INVENTORY`: write a bundle, or go on where an earlier run stopped."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from corral.catalog.entries import Catalog
from corral.errors import CorralError
from corral.files import reading, write_atomic
from corral.lock.requirements import FOLDER as LOCK_FOLDER
from corral.offline.fetch import Source, fetch
from corral.offline.folder import FREE_SPACE, BundleFolder, digest_of
from corral.offline.manifest import (
    DOCUMENT,
    Bundle,
    BundleFile,
    Earlier,
    Product,
    manifest_sha256,
    parse_bundle,
    read_manifest,
)
from corral.offline.needs import Needs, PackageSet, archive_names, header_files, image_name
from corral.offline.packages import INDEX, AptRoot, Deb, Signer, add_index, add_packages, paragraph
from corral.offline.product import add_product
from corral.offline.signature import sign
from corral.offline.wheels import Target, add_wheels, index_arguments, locked
from corral.paths import default_headers_folder
from corral.plan.release import OwnImage
from corral.project import LOCK_FILE
from corral.remote.client import current_operator
from corral.sources.git import pack_commit

Report = Callable[[str], None]
_MIB = 1024**2
# A shard is reported this often.
_STEP_BYTES = 1024**3


@dataclass(frozen=True)
class Options:
    """How a bundle is written.

    + sources: platform -> file with its package sources; + packages: more of them, for all hosts
    + since: the bundle that this one adds to; + key: to sign with; + passphrase: of the key
    """

    sources: Mapping[str, Path] = field(default_factory=dict)
    packages: Sequence[str] = ()
    since: Path | None = None
    key: Path | None = None
    passphrase: str | None = None


@dataclass(frozen=True)
class _Earlier:
    """The bundle that another one adds to; nothing without one."""

    named: Earlier | None = None
    files: dict[str, BundleFile] = field(default_factory=dict)
    paragraphs: dict[str, str] = field(default_factory=dict)

    @property
    def packages(self) -> dict[str, int]:
        """Name -> size of packages whose paragraph of the index is known, too."""
        return {name: self.files[name].size_bytes for name in self.paragraphs.keys() & self.files}

    def has(self, name: str, sha256: str) -> bool:
        """Whether it has a file with the same content."""
        return name in self.files and self.files[name].sha256 == sha256


def write_bundle(
    path: Path, root: Path, needs: Needs, catalog: Catalog, options: Options, report: Report
) -> Bundle:
    """Write a bundle; what is there already is kept. Raises CorralError.

    + root: the project, with its lock
    """
    earlier = _earlier(options.since)
    with BundleFolder.opened(path) as folder:
        folder.begin()
        writing = _Writing(folder, earlier, report)
        writing.room(needs)
        writing.lock(root)
        writing.weights(needs)
        writing.archives(needs)
        writing.sources(needs)
        writing.images(needs)
        writing.wheels(needs, catalog)
        apt_key = writing.packages(needs, options)
        product = writing.product()
        bundle = writing.described(needs, product, apt_key)
        document = bundle.model_dump_json(indent=1) + "\n"
        folder.keep_only({file.name for file in bundle.files})
        write_atomic(path / DOCUMENT, document, next_step=FREE_SPACE)
        if options.key:
            sign(path, options.key, passphrase=options.passphrase)
        folder.clear_work()
    return bundle


class _Writing:
    """One run: each step adds what is missing, and notes what the bundle has."""

    def __init__(self, folder: BundleFolder, earlier: _Earlier, report: Report) -> None:
        self._folder, self._earlier, self._report = folder, earlier, report
        self._files: dict[str, BundleFile] = {}

    def room(self, needs: Needs) -> None:
        """Refuse a disk that is too small for what has a known size."""
        weights = sum(
            source.size_bytes or 0
            for name, source in needs.weights.items()
            if not self._is_there(name, source.sha256)
        )
        archives = sum(
            one.archive.size_bytes
            for one in needs.archives
            if not self._is_there(archive_names(one.archive)[0], one.archive.sha256)
        )
        self._folder.refuse_small(weights + archives)

    def lock(self, root: Path) -> None:
        """The lock, and the requirements that it names."""
        self._copy(f"lock/{LOCK_FILE}", root / LOCK_FILE)
        for path in sorted((root / LOCK_FOLDER).glob("*.txt")):
            self._copy(f"lock/{LOCK_FOLDER}/{path.name}", path)

    def weights(self, needs: Needs) -> None:
        """Files of models, and the headers that plans are made from."""
        for number, (name, source) in enumerate(sorted(needs.weights.items()), start=1):
            title = f"weights {number} of {len(needs.weights)}: {name.removeprefix('weights/')}"
            self._fetch(name, source, title)
        for path in header_files(default_headers_folder(), needs.digests):
            self._copy(f"headers/{path.name}", path)

    def archives(self, needs: Needs) -> None:
        """Engine releases."""
        for one in needs.archives:
            name, described = archive_names(one.archive)
            if not self._elsewhere(name, one.archive.sha256):
                if not self._folder.has(name, one.archive.sha256):
                    self._report(f"release {one.archive.engine} {one.archive.key}")
                source = one.store.path(one.archive)
                self._note(self._folder.copy(name, source, one.archive.sha256))
            text = one.archive.model_dump_json(indent=2) + "\n"
            self._note(self._folder.write(described, text.encode()))

    def sources(self, needs: Needs) -> None:
        """Commits of engines that hosts build; their names say what they have."""
        for name, wanted in needs.sources.items():
            if earlier := self._earlier.files.get(name):
                self._note(earlier)
                continue
            if (known := self._folder.known(name)) is None:
                self._report(f"sources of {wanted.engine}: {wanted.because}")
                pack, where = self._folder.partial(name), f"engine {wanted.engine}"
                work = self._folder.work / "git"
                pack_commit(wanted.url, wanted.commit, pack, work, where=where)
                known = self._folder.finish(name)
            self._note(known)

    def images(self, needs: Needs) -> None:
        """Images of a site's own, from their URL or a file of this controller."""
        for release in needs.images:
            made = release.artifact
            if not isinstance(made, OwnImage):
                continue
            name = image_name(made.sha256, made.image)
            if made.source.startswith("/"):
                if not self._elsewhere(name, made.sha256):
                    self._note(self._folder.copy(name, _image_here(made), made.sha256))
                continue
            most = release.limits.unpacked_bytes
            source = Source(url=made.source, sha256=made.sha256, most_bytes=most)
            self._fetch(name, source, f"image of {release.engine}")

    def wheels(self, needs: Needs, catalog: Catalog) -> None:
        """Distributions of Python environments that have no archive, and uv's."""
        for made in needs.environments:
            platform = catalog.platform(made.platform, where="corral bundle")
            target = Target(platform.python, platform.c_library)
            wanted = [*locked(made.requirements, target), *locked(made.installer, target)]
            self._report(f"{len(wanted)} wheels for Python {made.python}")
            earlier = list(self._earlier.files.values())
            arguments = index_arguments(made)
            for file in add_wheels(
                self._folder, "wheels", wanted, target, arguments, earlier=earlier
            ):
                self._note(file)

    def packages(self, needs: Needs, options: Options) -> str:
        """The distributions' packages; returns the key that their indexes are signed with."""
        with tempfile.TemporaryDirectory(prefix="gpg") as home:
            signer = Signer(Path(home))
            try:
                for platform, sets in needs.packages.items():
                    self._report(f"packages of {platform}")
                    source = options.sources.get(platform)
                    root = AptRoot(platform, self._folder.work / "apt" / platform, source)
                    first = [_with(sets[0], options.packages), *sets[1:]]
                    debs = add_packages(self._folder, root, first, self._earlier.packages)
                    self._index(platform, debs, signer)
            finally:
                signer.close()
        return signer.public_key

    def product(self) -> Product:
        """Corral itself."""
        self._report("Corral and its Python environment")
        product, files = add_product(self._folder, list(self._earlier.files.values()))
        for file in files:
            self._note(file)
        return product

    def described(self, needs: Needs, product: Product, apt_key: str) -> Bundle:
        """The manifest of what was added."""
        here = {n: f for n, f in self._files.items() if self._folder.has(n, f.sha256)}
        elsewhere = {n: f for n, f in self._files.items() if n not in here}
        return Bundle(
            at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            by=current_operator(),
            hosts=needs.hosts,
            platforms=tuple(needs.packages),
            product=product,
            since=self._earlier.named,
            files=tuple(here[name] for name in sorted(here)),
            elsewhere=tuple(elsewhere[name] for name in sorted(elsewhere)),
            apt_key=apt_key,
            left_out=needs.left_out,
        )

    def _index(self, platform: str, debs: Mapping[str, Deb], signer: Signer) -> None:
        paragraphs = []
        for name, deb in debs.items():
            if self._earlier.packages.get(name) == deb.size_bytes:
                self._note(self._earlier.files[name])
                paragraphs.append(self._earlier.paragraphs[name])
                continue
            file = self._folder.known(name)
            if file is None:
                raise CorralError(name, "is not there any more", "run the same command again")
            self._note(file)
            paragraphs.append(paragraph(self._folder.path / name, file))
        add_index(self._folder, platform, paragraphs, signer)
        for known in (f"apt/{platform}/{name}" for name in (INDEX, "InRelease")):
            file = self._folder.known(known)
            if file:
                self._note(file)

    def _fetch(self, name: str, source: Source, title: str) -> None:
        if self._elsewhere(name, source.sha256):
            return
        if (known := self._folder.known(name)) and known.sha256 == source.sha256:
            self._note(known)
            return
        size = f", {source.size_bytes / _MIB:,.0f} MiB" if source.size_bytes else ""
        self._report(f"{title}{size}")
        self._note(fetch(self._folder, name, source, _Steps(self._report, source)))

    def _copy(self, name: str, source: Path) -> None:
        with reading(source, next_step="run `corral lock INVENTORY`"):
            sha256 = digest_of(source).sha256
        self._note(self._folder.copy(name, source, sha256))

    def _is_there(self, name: str, sha256: str) -> bool:
        return self._earlier.has(name, sha256) or self._folder.has(name, sha256)

    def _elsewhere(self, name: str, sha256: str) -> bool:
        """Whether the earlier bundle has it; then it is noted, and not written again."""
        if not self._earlier.has(name, sha256):
            return False
        self._note(self._earlier.files[name])
        return True

    def _note(self, file: BundleFile) -> None:
        self._files[file.name] = file


class _Steps:
    """Reports each gigabyte of a file."""

    def __init__(self, report: Report, source: Source) -> None:
        self._report, self._whole, self._next = report, source.size_bytes, _STEP_BYTES

    def __call__(self, arrived: int) -> None:
        if arrived >= self._next:
            whole = f" of {self._whole / _STEP_BYTES:,.0f}" if self._whole else ""
            self._report(f"  {arrived / _STEP_BYTES:,.0f}{whole} GiB")
            self._next = (arrived // _STEP_BYTES + 1) * _STEP_BYTES


def _with(first: PackageSet, more: Sequence[str]) -> PackageSet:
    return replace(first, packages=tuple(dict.fromkeys((*first.packages, *more))))


def _image_here(made: OwnImage) -> Path:
    path = Path(made.source)
    if not path.is_file():
        what = "the catalog names this file of hosts, and this controller has none there"
        raise CorralError(made.source, what, "copy it here, to the same path")
    return path


def _earlier(path: Path | None) -> _Earlier:
    """What an earlier bundle has: its folder, or a copy of its manifest alone."""
    if path is None:
        return _Earlier()
    folder = path.parent if path.is_file() else path
    data = read_manifest(folder)
    bundle = parse_bundle(data, where=str(folder / DOCUMENT))
    named = Earlier(at=bundle.at, manifest_sha256=manifest_sha256(data))
    paragraphs: dict[str, str] = {}
    for platform in bundle.platforms:
        index = f"apt/{platform}/{INDEX}"
        here = folder / index
        known = bundle.needed.get(index)
        if known and here.is_file() and digest_of(here).sha256 == known.sha256:
            paragraphs |= _paragraphs(platform, here.read_text())
    return _Earlier(named, bundle.needed, paragraphs)


def _paragraphs(platform: str, text: str) -> dict[str, str]:
    found = {}
    for part in text.split("\n\n"):
        lines = part.strip("\n").splitlines()
        file = next((line for line in lines if line.startswith("Filename: ./")), None)
        if file:
            found[f"apt/{platform}/{file.removeprefix('Filename: ./')}"] = "\n".join(lines) + "\n"
    return found
