"""Small wheels."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

from corral_shared.requirements import normalized

_WHEEL = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def make_wheel(
    folder: Path,
    name: str,
    files: Mapping[str, str | bytes],
    *,
    version: str = "1.0",
    requires: tuple[str, ...] = (),
    entry_points: str = "",
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    """Write a wheel; equal contents give equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    path, info = folder / f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    members: dict[str, str | bytes] = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": _WHEEL,
        **({f"{info}/entry_points.txt": entry_points} if entry_points else {}),
    }
    rows = [f"{member},,\n" for member in (*members, f"{info}/RECORD")]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for member, content in {**members, f"{info}/RECORD": "".join(rows)}.items():
            entry = zipfile.ZipInfo(member)
            entry.external_attr = (0o100755 if ".data/scripts/" in member else 0o100644) << 16
            archive.writestr(entry, content, compression)
    return path


def sha256(path: Path) -> str:
    """The digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def requirement(path: Path) -> str:
    """The locked line of a wheel."""
    name, version, *_ = path.name.split("-")
    return f"{normalized(name)}=={version} --hash=sha256:{sha256(path)}\n"


def flip(path: Path, *, at: int = -200) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))
