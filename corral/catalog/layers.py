"""Files of the catalog: those of a fleet's own folder, over those that come with Corral."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from corral_shared.text import printable_line

from corral.errors import CorralError
from corral.names import safe_file_name


class Layer(NamedTuple):
    """A folder with a catalog, and how messages begin the names of its files."""

    folder: Path
    owner: str = ""


class Found(NamedTuple):
    """A file of the catalog; ``where`` names it in messages."""

    path: Path
    where: str
    owner: str = ""

    @property
    def next_step(self) -> str:
        """What to do about a mistake in it."""
        if self.owner:
            return f"write {self.where.removeprefix(self.owner)} of your own, which wins"
        return f"edit {self.where}"


def found_files(layers: Sequence[Layer], kind: str, pattern: str) -> dict[str, list[Found]]:
    """File name -> the files of this name in catalog/KIND/, the strongest first.

    + layers: the strongest first
    Raises CorralError for anything but files, and for names that are not safe on hosts.
    """
    found: dict[str, list[Found]] = {}
    for layer in layers:
        for path in sorted((layer.folder / kind).glob(pattern)):
            file = Found(path, layer.owner + _shown(path), layer.owner)
            for name in (path.name, path.stem):
                step = f"rename it in catalog/{kind}/"
                safe_file_name(name, where=file.where, next_step=step)
            if not path.is_file():
                raise _misplaced(file)
            found.setdefault(path.name, []).append(file)
    return dict(sorted(found.items()))


def replaced(layers: Sequence[Layer]) -> tuple[str, ...]:
    """Files of the first layer that have the name of a file in another, and other content."""
    first, *others = layers
    twins = [
        (path, layer.folder / path.relative_to(first.folder))
        for layer in others
        for path in sorted(first.folder.glob("*/*"))
    ]
    return tuple(_shown(own) for own, other in twins if _differ(own, other))


def texts(layers: Sequence[Layer], kind: str, pattern: str) -> dict[str, str]:
    """File name -> text. A link out of its folder is refused: it could copy any file to hosts.

    Raises CorralError.
    """
    strongest = [files[0] for files in found_files(layers, kind, pattern).values()]
    for file in strongest:
        if file.path.resolve().parent != file.path.parent.resolve():
            raise _misplaced(file)
    return {file.path.name: _text(file) for file in strongest}


def read_toml(file: Found) -> dict[str, Any]:
    """The keys of a file. Raises CorralError."""
    try:
        return tomllib.loads(_text(file))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        what = f"not readable as TOML: {error}"
        raise CorralError(file.where, what, file.next_step) from error


def _misplaced(file: Found) -> CorralError:
    step = f"remove it from catalog/{file.path.parent.name}/"
    return CorralError(file.where, "is not a file of this folder", step)


def _text(file: Found) -> str:
    try:
        return file.path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        what = f"not readable as text: {error}"
        raise CorralError(file.where, what, file.next_step) from error
    except OSError as error:
        what = f"not readable: {error.strerror}"
        raise CorralError(file.where, what, f"see {file.where}") from error


def _differ(own: Path, other: Path) -> bool:
    """Whether both are files, and have other content; reading it reports what cannot be read."""
    try:
        return own.read_bytes() != other.read_bytes()
    except OSError:
        return False


def _shown(path: Path) -> str:
    return printable_line("/".join(path.parts[-3:]))
