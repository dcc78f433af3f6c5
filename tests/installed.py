"""Corral as a wheel, installed into an environment that has nothing else but what it requires."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

from tests.samples import ROOT

Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Installed:
    """Commands of an environment, run in a folder; ``home``: of the user."""

    environment: Path
    home: Path

    @property
    def packages(self) -> Path:
        """Its site-packages."""
        return next(self.environment.glob("lib/python*/site-packages"))

    def run(self, program: str, *arguments: str, folder: Path) -> Done:
        """Run ``corral`` or ``pyinfra``; the caller judges the exit code."""
        kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        return subprocess.run(
            [str(self.environment / "bin" / program), *arguments], cwd=folder, check=False,
            env={**kept, "HOME": str(self.home), "PYINFRA_PROGRESS": "off"}, text=True,
            stdin=subprocess.DEVNULL, capture_output=True,
        )  # fmt: skip


def build_wheel(folder: Path) -> Path:
    """The wheel of what git tracks or would add."""
    source, out = folder / "source", folder / "dist"
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True)
    for name in filter(None, done.stdout.split("\0")):
        if not name.startswith("tests/") and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    _pip("wheel", *options, "--wheel-dir", str(out), str(source))
    (wheel,) = out.glob("*.whl")
    return wheel


def install(wheel: Path, folder: Path) -> Installed:
    """An environment with the wheel and its requirements, which are linked to those here."""
    path = folder / "environment"
    venv.create(path, with_pip=False, symlinks=True)
    found = Installed(path, folder / "home")
    found.home.mkdir()
    for one in _required(wheel):
        _link(one, found)
    python = str(path / "bin" / "python")
    _pip("--python", python, "install", "--quiet", "--no-deps", "--no-index", str(wheel))
    return found


def _required(wheel: Path) -> list[Distribution]:
    with zipfile.ZipFile(wheel) as opened:
        (name,) = (n for n in opened.namelist() if n.endswith(".dist-info/METADATA"))
        wanted = message_from_bytes(opened.read(name)).get_all("Requires-Dist") or []
    known: dict[str, Distribution] = {}
    # With the extras that the distribution was wanted with which requires it.
    waiting = [(Requirement(text), {""}) for text in wanted]
    while waiting:
        asked, extras = waiting.pop()
        if asked.marker and not any(asked.marker.evaluate({"extra": one}) for one in extras):
            continue
        key = f"{asked.name.lower()}[{','.join(sorted(asked.extras))}]"
        if key not in known:
            known[key] = distribution(asked.name)
            own = {"", *asked.extras}
            waiting += [(Requirement(text), own) for text in known[key].requires or []]
    return list(known.values())


def _link(one: Distribution, found: Installed) -> None:
    """Link what a distribution has in site-packages, and write its scripts."""
    for name in {file.parts[0] for file in one.files or () if file.parts[0] != ".."}:
        target = found.packages / name
        if name != "__pycache__" and not target.exists():
            target.symlink_to(Path(str(one.locate_file(name))).resolve())
    for point in one.entry_points.select(group="console_scripts"):
        script = found.environment / "bin" / point.name
        lines = _script(found.environment / "bin" / "python", point.module, point.attr)
        script.write_text("\n".join(lines) + "\n")
        script.chmod(0o755)


def _script(python: Path, module: str, name: str) -> Iterator[str]:
    yield f"#!{python}"
    yield "import sys"
    yield f"from {module} import {name}"
    yield f"sys.exit({name}())"


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, capture_output=True)
