"""The host helper as one archive that Python runs; its bytes are reproducible."""

from __future__ import annotations

import base64
import io
import zipfile
from functools import cache
from pathlib import Path

_EPOCH = (1980, 1, 1, 0, 0, 0)

# Where the installed helper is unpacked: files/corral_host/start.py.
UNPACKED = "/run/corral-helper"
# Runs an archive without a file on the host. The archive is the first line of standard input, in
# base64; the command reads the rest from the same buffer. Where the installed helper is the same
# one, it runs from that one's files, which Python has compiled.
BOOTSTRAP = (
    "import base64,hashlib,os,sys;"
    "a=base64.b64decode(sys.stdin.buffer.readline());"
    f"d='{UNPACKED}/'+hashlib.sha256(a).hexdigest();"
    "f=os.memfd_create('corral');"
    "os.write(f,a);"
    "sys.path.insert(0,d if os.path.isdir(d) else f'/proc/self/fd/{f}');"
    "from corral_host.__main__ import main;"
    "sys.exit(main(sys.argv[1:]))"
)


@cache
def archive(package: Path) -> bytes:
    """Zip ``files/corral_host`` with fixed dates; its ``start.py`` is what Python runs.

    It includes ``files/corral_shared``, the rules of both sides.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
        for folder in (package, package.with_name("corral_shared")):
            for path in sorted(folder.rglob("*.py")):
                name = path.relative_to(folder.parent).as_posix()
                _add(bundle, name, path.read_text(encoding="utf-8"))
        _add(bundle, "__main__.py", (package / "start.py").read_text(encoding="utf-8"))
    return buffer.getvalue()


def encoded(package: Path) -> str:
    """The archive as text, for standard input."""
    return base64.b64encode(archive(package)).decode()


def _add(bundle: zipfile.ZipFile, name: str, text: str) -> None:
    bundle.writestr(zipfile.ZipInfo(name, _EPOCH), text, compress_type=zipfile.ZIP_DEFLATED)
