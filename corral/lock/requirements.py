"""Requirements files with hashes: what Python environments are made of, compiled by uv.

Each engine that is such an environment has one beside corral.lock, in corral.lock.d/. Its entry in
corral.lock has the digest of the file.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from corral_shared.requirements import pins
from corral_shared.text import printable_line

from corral.catalog.entries import Catalog
from corral.catalog.python_environment import ADDRESS, PythonEnvironment
from corral.errors import CorralError
from corral.files import make_folder, read_small, write_atomic, writing
from corral.inventory.hosts import Host
from corral.lock.lock_file import Lock, LockedEngine, Wanted, lock_step, resolve_instance

FOLDER = "corral.lock.d"
_INSTALLERS = "requirements.lock"
# Some 400 KB for the 200 distributions of vLLM.
_MOST_BYTES = 16 * 1024**2
_FREE_SPACE = "free disk space there, then run `corral lock` again"
_REASON_LINES = 12
_HASH = "--hash=sha256:"


@dataclass(frozen=True)
class Compiled:
    """An engine's entry in the lock, and the text of its requirements file."""

    entry: LockedEngine
    text: str


@dataclass(frozen=True)
class RequirementsFiles:
    """The requirements files of a project.

    + root: the folder of corral.lock; + product: that with the pins of Corral itself; ``root`` if
      None
    """

    root: Path
    product: Path | None = field(default=None, kw_only=True)

    def path(self, engine: str) -> Path:
        """The file of an engine."""
        return self.root / FOLDER / f"{engine}.txt"

    def read(self, engine: str, entry: LockedEngine, *, inventory: str = "") -> str:
        """The file that the lock's entry names. Raises CorralError where it is another or missing.

        + inventory: see ``lock_step``
        """
        text, problem = self._checked(engine, entry)
        if problem:
            step = f"`git checkout corral.lock {FOLDER}`, or {lock_step(inventory)}"
            raise CorralError(f"{FOLDER}/{engine}.txt", problem, step)
        return text

    def problem(self, engine: str, entry: LockedEngine) -> str | None:
        """What is wrong with an engine's file."""
        return self._checked(engine, entry)[1]

    def _checked(self, engine: str, entry: LockedEngine) -> tuple[str, str | None]:
        """The text of an engine's file, and what is wrong with it."""
        if not self.path(engine).exists():
            return "", f"is missing; corral.lock names it for engine {engine}"
        text = self._text(engine)
        if _sha256(text) != entry.requirements_sha256:
            return text, f"is not the file that corral.lock names for engine {engine}"
        return text, None

    def stale(self, lock: Lock, wanted: Wanted) -> list[str]:
        """One sentence for each file that is missing or not the one that the lock names."""
        found = []
        for name in sorted(wanted.engines & lock.engines.keys()):
            entry = lock.engines[name]
            if entry.requirements_sha256 and (problem := self.problem(name, entry)):
                found.append(f"{FOLDER}/{name}.txt {problem}")
        return found

    def write(self, compiled: dict[str, Compiled]) -> None:
        """Write the files of engines, before the lock that names them. Raises CorralError."""
        for engine, one in compiled.items():
            if self.problem(engine, one.entry) is None:
                continue
            make_folder(self.path(engine).parent, next_step=_FREE_SPACE)
            write_atomic(self.path(engine), one.text, next_step=_FREE_SPACE)

    def remove_unused(self, lock: Lock) -> None:
        """Remove the files that a written lock does not name. Raises CorralError."""
        for path in sorted((self.root / FOLDER).glob("*.txt")):
            entry = lock.engines.get(path.stem)
            if entry is None or entry.requirements_sha256 is None:
                with writing(path, next_step=_FREE_SPACE):
                    path.unlink()

    def installer(self) -> str:
        """uv as Corral itself pins it, with its hashes, for the hosts that make environments.

        Raises CorralError.
        """
        path = (self.product or self.root) / _INSTALLERS
        step = f"git checkout {_INSTALLERS}"
        text = read_small(path, most_bytes=_MOST_BYTES, next_step=step).decode(errors="replace")
        found = _block(text, "uv")
        if _HASH not in found:
            raise CorralError(_INSTALLERS, "does not pin uv with its hashes", step)
        return found

    def _text(self, engine: str) -> str:
        step = f"git checkout corral.lock {FOLDER}"
        data = read_small(self.path(engine), most_bytes=_MOST_BYTES, next_step=step)
        return data.decode(errors="replace")


def compile_all(
    lock: Lock,
    catalog: Catalog,
    hosts: Sequence[Host],
    files: RequirementsFiles,
    *,
    renew: Collection[str] = (),
) -> dict[str, Compiled]:
    """The Python environments that ``hosts`` use: as they are locked, else compiled.

    + renew: engines that are compiled for the newest distributions, whatever is locked
    Raises CorralError.
    """
    found = {}
    for name, urls in sorted(_indexes(hosts, catalog).items()):
        environment = catalog.engines[name].python
        if environment is None:
            continue
        entry = lock.engines.get(name)
        locked = entry is not None and entry.requested == environment.pinned
        if entry and locked and name not in renew and not files.problem(name, entry):
            found[name] = Compiled(entry, files.read(name, entry))
            continue
        before = files.path(name)
        old = before.read_text() if before.is_file() and name not in renew else ""
        found[name] = _compiled(name, environment, urls, old)
    unknown = sorted(set(renew) - found.keys())
    if unknown:
        what = f"{', '.join(unknown)}: no Python environment that these hosts use"
        raise CorralError("corral lock --update", what, "name one of their engines")
    return found


def _indexes(hosts: Iterable[Host], catalog: Catalog) -> dict[str, list[str]]:
    """Engine -> mirrors that its hosts name."""
    found: dict[str, list[str]] = {}
    for host in hosts:
        for instance in host.spec.instances:
            name = resolve_instance(instance, catalog, where=f"{host.name}/{instance.name}")[0]
            urls = found.setdefault(name, [])
            if catalog.engines[name].python and (url := mirror_of(host, name)):
                urls.append(url)
    return found


def mirror_of(host: Host, engine: str) -> str | None:
    """The index that a host names for an engine's distributions. Raises CorralError."""
    url = host.spec.engine_sources.get(engine)
    if url and not re.fullmatch(ADDRESS, url):
        what = f"engine_sources: {url!r} is no simple index: http(s):// or file://, no password"
        raise CorralError(host.name, what, f"correct engine_sources of {host.name}")
    return url


def _compiled(
    name: str, environment: PythonEnvironment, mirrors: Sequence[str], old: str
) -> Compiled:
    text = compile_requirements(name, environment, mirrors[0] if mirrors else None, old)
    digest = _sha256(text)
    entry = LockedEngine(
        requested=environment.pinned, commit=digest[:40], requirements_sha256=digest
    )
    return Compiled(entry, text)


def compile_requirements(
    name: str, environment: PythonEnvironment, mirror: str | None = None, old: str = ""
) -> str:
    """Every distribution of an environment, with hashes and without addresses.

    For all its versions of Python.

    + mirror: used instead of the sources that the catalog names
    + old: an earlier file, whose versions are kept where they still suit
    Raises CorralError with uv's own reasons.
    """
    step = "free disk space there, then run `corral lock` again"
    with writing(Path("temporary folder"), next_step=step), TemporaryDirectory() as folder:
        result = Path(folder, "result.txt")
        result.write_text(old)
        Path(folder, "wanted.txt").write_text("\n".join(environment.requirements) + "\n")
        Path(folder, "pyproject.toml").write_text(_project(environment))
        Path(folder, "without.txt").write_text("\n".join(environment.without) + "\n")
        command = [
            # Without an interpreter uv asks every one that it finds for its version.
            _uv(), "pip", "compile", "--python", sys.executable,
            "--universal", "--python-version", environment.lowest_python,
            "--only-binary", ":all:", "--generate-hashes", "--no-header", "--no-annotate",
            "--no-emit-index-url", "--no-emit-find-links", "--no-progress", "--color", "never",
            "--excludes", "without.txt", *_sources(environment, mirror),
            "--output-file", result.name, "wanted.txt",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        text = result.read_text() if done.returncode == 0 else ""
    if done.returncode != 0:
        reason = [printable_line(line) for line in done.stderr.splitlines() if line.strip()]
        what = "uv could not compile its requirements:\n" + "\n".join(reason[-_REASON_LINES:])
        step = (
            "correct the requirements, or name an index that this machine reaches "
            f"(index of catalog/engines/{name}.toml), then run the same command again"
        )
        raise CorralError(f"catalog/engines/{name}.toml: python", what, step)
    _refuse_unhashed(name, text)
    return text


def _project(environment: PythonEnvironment) -> str:
    """Hosts are all of one kind; an index may lack wheels for others.

    JSON's strings are TOML's.
    """
    return (
        f'[project]\nname = "environment"\nversion = "0"\n'
        f"requires-python = {json.dumps(environment.python)}\n"
        f"[tool.uv]\nenvironments = [{json.dumps(environment.marker)}]\n"
    )


def _sources(environment: PythonEnvironment, mirror: str | None) -> list[str]:
    if mirror:
        return ["--default-index", mirror]
    index, folder = environment.index, environment.find_links
    arguments = ["--default-index", index] if index else []
    if folder:
        arguments += ["--find-links", folder, *([] if index else ["--no-index"])]
    return arguments


def _refuse_unhashed(name: str, text: str) -> None:
    """Some indexes give no hashes: a file without them proves nothing."""
    bare = [one for one in pins(text) if _HASH not in _block(text, one)]
    if bare:
        what = f"the index has no hash of {', '.join(bare[:5])}"
        step = "name another index, then run the same command again"
        raise CorralError(f"catalog/engines/{name}.toml: python", what, step)


def _block(text: str, name: str) -> str:
    """The lines of a distribution: its pin, and the hashes that follow it."""
    found: list[str] = []
    inside = False
    for line in text.splitlines():
        if line and not line[0].isspace():
            inside = name in pins(line)
        if inside and not line.lstrip().startswith("#"):
            found.append(line.rstrip())
    return "\n".join(found)


def _uv() -> str:
    # Only `corral lock` needs it.
    from uv import find_uv_bin

    try:
        return find_uv_bin()
    except FileNotFoundError as error:
        step = "make setup"
        raise CorralError("corral lock", f"uv is not installed: {error}", step) from error


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
