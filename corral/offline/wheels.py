"""Wheels of locked requirements, downloaded by pip, which checks each against its digest."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from packaging.markers import Marker, default_environment

from corral.errors import CorralError
from corral.files import make_folder, writing
from corral.offline.folder import FREE_SPACE, BundleFolder, digest_of
from corral.offline.manifest import BundleFile
from corral.offline.programs import run
from corral.plan.release import PythonEnvironment

_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_LINE = re.compile(r"(?P<pin>[A-Za-z0-9][^\s;]*==[^\s;]+)\s*(?:;(?P<marker>.*?))?(?=\s--hash|$)")
# Of glibc 2.5, the oldest that wheels are made for.
_OLDEST_MINOR = 5


@dataclass(frozen=True)
class Locked:
    """One distribution of a requirements file: ``pin``: name==version, and digests of its files."""

    pin: str
    hashes: tuple[str, ...]

    @property
    def text(self) -> str:
        """As pip reads it."""
        return " ".join([self.pin, *(f"--hash=sha256:{one}" for one in self.hashes)])


@dataclass(frozen=True)
class Target:
    """Who installs: Python such as 3.12, and a C library such as 2.39; here, without either."""

    python: str | None = None
    c_library: str | None = None

    def arguments(self) -> list[str]:
        """Of pip."""
        if self.python is None or self.c_library is None:
            return []
        newest = int(self.c_library.partition(".")[2])
        named = [f"manylinux_2_{minor}_x86_64" for minor in range(newest, _OLDEST_MINOR - 1, -1)]
        named += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64",
                  "linux_x86_64"]  # fmt: skip
        platforms = [part for one in named for part in ("--platform", one)]
        return ["--python-version", self.python, "--implementation", "cp", *platforms]

    def environment(self) -> dict[str, str]:
        """What markers are compared with."""
        found = {name: str(value) for name, value in default_environment().items()}
        if self.python is not None:
            found |= {
                "python_version": self.python, "python_full_version": f"{self.python}.0",
                "platform_machine": "x86_64", "sys_platform": "linux", "os_name": "posix",
                "platform_system": "Linux", "implementation_name": "cpython",
                "platform_python_implementation": "CPython",
            }  # fmt: skip
        return found


def locked(text: str, target: Target) -> list[Locked]:
    """The distributions of a requirements file with hashes that a target installs."""
    environment, found = target.environment(), []
    for block in _blocks(text):
        line = _LINE.match(block)
        if line is None:
            continue
        marker = (line["marker"] or "").strip()
        if marker and not Marker(marker).evaluate(environment):
            continue
        found.append(Locked(line["pin"], tuple(_HASH.findall(block))))
    return found


def add_wheels(
    folder: BundleFolder,
    kind: str,
    wanted: Sequence[Locked],
    target: Target,
    sources: Sequence[str],
    *,
    earlier: Collection[BundleFile] = (),
) -> list[BundleFile]:
    """Download wheels below the folder ``kind`` of a bundle; returns the files of all of them.

    + sources: arguments of pip for its index; + earlier: files of the bundle that this one adds to
    Raises CorralError with pip's own reason.
    """
    known = {file.sha256: file for file in earlier if file.name.startswith(f"{kind}/")}
    for path in (folder.path / kind).glob("*.whl"):
        if file := folder.known(f"{kind}/{path.name}"):
            known[file.sha256] = file
    there = {one.pin: next((known[h] for h in one.hashes if h in known), None) for one in wanted}
    missing = [one for one in wanted if there[one.pin] is None]
    found = [file for file in there.values() if file]
    if missing:
        incoming = folder.work / "wheels"
        make_folder(incoming, next_step=FREE_SPACE)
        _download(missing, target, sources, incoming)
        for path in sorted(incoming.glob("*.whl")):
            found.append(_taken(folder, f"{kind}/{path.name}", path, missing))
    return found


def index_arguments(environment: PythonEnvironment) -> list[str]:
    """Arguments of pip for the index of an environment; none: this controller's own."""
    index, links = environment.index, environment.find_links
    arguments = ["--index-url", index] if index else []
    if links:
        arguments += ["--find-links", links, *([] if index else ["--no-index"])]
    plain = [urlsplit(url).netloc for url in (index, links) if url and url.startswith("http://")]
    return [*arguments, *(part for host in plain for part in ("--trusted-host", host))]


def _download(
    missing: Sequence[Locked], target: Target, sources: Sequence[str], incoming: Path
) -> None:
    wanted = incoming / "requirements.txt"
    with writing(wanted, next_step=FREE_SPACE):
        wanted.write_text("".join(f"{one.text}\n" for one in missing))
    links = os.environ.get("PIP_FIND_LINKS", "").split()
    run(
        [
            sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input",
            "--disable-pip-version-check", "--only-binary", ":all:", "--require-hashes",
            *target.arguments(), *sources, "--dest", str(incoming), "--requirement", str(wanted),
            *(part for one in links for part in ("--find-links", one)),
        ],
        where=f"{len(missing)} wheels",
        next_step="check the package index, and that the disk has room, then run the same command "
        "again; what is there already is kept",
    )  # fmt: skip


def _taken(folder: BundleFolder, name: str, path: Path, missing: Sequence[Locked]) -> BundleFile:
    """Put a downloaded wheel in place; one of an earlier, killed download may be of no use."""
    sha256 = digest_of(path).sha256
    if not any(sha256 in one.hashes for one in missing):
        path.unlink()
        raise CorralError(name, "is none of the locked wheels", "run the same command again")
    path.replace(folder.partial(name))
    return folder.finish(name, sha256)


def _blocks(text: str) -> Iterator[str]:
    """Lines of one distribution, joined."""
    lines: list[str] = []
    for line in text.splitlines():
        if line.lstrip().startswith("#") or not line.strip():
            continue
        if not line[0].isspace() and lines:
            yield " ".join(lines)
            lines = []
        lines.append(line.strip().removesuffix("\\").strip())
    if lines:
        yield " ".join(lines)
