"""Corral itself and its locked Python environment, for a controller without a network."""

from __future__ import annotations

import base64
import hashlib
import platform
import shutil
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path
from tempfile import TemporaryDirectory

from corral_shared.requirements import normalized
from packaging.requirements import Requirement

from corral.errors import CorralError
from corral.files import read_small
from corral.offline.folder import BundleFolder, digest_of
from corral.offline.manifest import BundleFile, Product
from corral.offline.programs import run
from corral.offline.wheels import Locked, Target, add_wheels, locked
from corral.product import installed_product

NAME = "corral"
REQUIREMENTS = "product/requirements.txt"
_LOCKED = "requirements.lock"
_MOST_BYTES = 16 * 1024**2
# Of a checkout, what its wheel is made of.
_SOURCES = (
    "pyproject.toml", "setup.py", "README.md", "corral", "files", "catalog", "config.py",
    "deploy.py", "deploys", "facts", "operations", "requirements.lock", "templates",
)  # fmt: skip
_OF_PIP = ("INSTALLER", "REQUESTED", "RECORD", "direct_url.json")
# A zip archive has no earlier date: two wheels of the same files are the same.
_DATE = (1980, 1, 1, 0, 0, 0)


def add_product(
    folder: BundleFolder, earlier: list[BundleFile]
) -> tuple[Product, list[BundleFile]]:
    """Add Corral and what it requires, for the Python of this controller. Raises CorralError."""
    product = installed_product()
    with TemporaryDirectory(prefix="corral-wheel-") as work:
        wheel = _wheel(product, Path(work))
        own = folder.copy(f"product/{wheel.name}", wheel, digest_of(wheel).sha256)
    wanted = _required(product)
    text = "".join(f"{one.text}\n" for one in wanted).encode()
    listed = folder.write(REQUIREMENTS, text)
    wheels = add_wheels(folder, "product", wanted, Target(), [], earlier=earlier)
    version = distribution(NAME).version
    python = f"{sys.version_info.major}.{sys.version_info.minor} {platform.machine()}"
    return Product(version=version, python=python), [own, listed, *wheels]


def _required(product: Path) -> list[Locked]:
    """What Corral requires without its extras, as its own lock has it. Raises CorralError."""
    path = product / _LOCKED
    data = read_small(path, most_bytes=_MOST_BYTES, next_step=f"git checkout {_LOCKED}")
    names = set(_closure())
    found = [one for one in locked(data.decode(errors="replace"), Target())
             if normalized(one.pin.partition("==")[0]) in names]  # fmt: skip
    missing = names - {normalized(one.pin.partition("==")[0]) for one in found}
    if missing:
        what = f"does not pin {', '.join(sorted(missing))}, which is installed here"
        raise CorralError(str(path), what, "make setup")
    return found


def _closure() -> Iterator[str]:
    """Names of all distributions that Corral requires, directly and not."""
    seen: set[tuple[str, str]] = set()
    waiting = [(NAME, "")]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for text in distribution(name).requires or []:
            one = Requirement(text)
            if one.marker and not one.marker.evaluate({"extra": extra}):
                continue
            waiting += [(normalized(one.name), each) for each in ("", *one.extras)]
    yield from {name for name, _ in seen} - {NAME}


def _wheel(product: Path, work: Path) -> Path:
    """Corral's wheel: made of a checkout, or of what is installed. Raises CorralError."""
    if (product / "pyproject.toml").is_file():
        return _of_checkout(product, work)
    return _of_installed(distribution(NAME), work)


def _of_checkout(product: Path, work: Path) -> Path:
    source, out = work / "source", work / "dist"
    source.mkdir()
    unwanted = shutil.ignore_patterns("__pycache__", "*.pyc", ".*", "*.egg-info")
    for name in _SOURCES:
        if (product / name).is_dir():
            shutil.copytree(product / name, source / name, ignore=unwanted)
        else:
            shutil.copy2(product / name, source / name)
    command = [
        sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps",
        "--no-build-isolation", "--no-index", "--wheel-dir", str(out), str(source),
    ]  # fmt: skip
    run(command, where="the wheel of Corral", next_step="make setup")
    (wheel,) = out.glob("*.whl")
    return wheel


def _of_installed(installed: Distribution, work: Path) -> Path:
    """A wheel again, of an installed one: its files with a new list of them."""
    info = f"{NAME}-{installed.version}.dist-info"
    path = work / f"{NAME}-{installed.version}-py3-none-any.whl"
    record = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(installed.files or (), key=str):
            # Scripts are made anew, and so is what Python compiles.
            if ".." in file.parts or "__pycache__" in file.parts:
                continue
            if file.parts[0] == info and file.name in _OF_PIP:
                continue
            content = Path(str(installed.locate_file(file))).read_bytes()
            archive.writestr(zipfile.ZipInfo(str(file), _DATE), content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            record.append(f"{file},sha256={digest.decode()},{len(content)}")
        lines = "\n".join([*record, f"{info}/RECORD,,"]) + "\n"
        archive.writestr(zipfile.ZipInfo(f"{info}/RECORD", _DATE), lines)
    return path
