"""The host helper as one archive that Python runs; its bytes are reproducible."""

from __future__ import annotations

import base64
import io
import zipfile
from functools import cache
from pathlib import Path

_EPOCH = (1980, 1, 1, 0, 0, 0)

# Runs an archive without a file on the host. The archive is the first line of standard input, in
# base64; the command reads the rest from the same buffer.
BOOTSTRAP = (
    "import base64,os,sys;"
    "f=os.memfd_create('corral');"
    "os.write(f,base64.b64decode(sys.stdin.buffer.readline()));"
    "sys.path.insert(0,f'/proc/self/fd/{f}');"
    "from corral_host.__main__ import main;"
    "sys.exit(main(sys.argv[1:]))"
)


@cache
def archive(package: Path) -> bytes:
    """Zip ``files/corral_host`` with fixed dates, with a ``__main__.py`` that runs it.

    It includes ``files/corral_shared``, the rules of both sides.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
        for folder in (package, package.with_name("corral_shared")):
            for path in sorted(folder.rglob("*.py")):
                name = path.relative_to(folder.parent).as_posix()
                _add(bundle, name, path.read_text(encoding="utf-8"))
        _add(
            bundle,
            "__main__.py",
            "import sys\nfrom corral_host.__main__ import main\nsys.exit(main(sys.argv[1:]))\n",
        )
    return buffer.getvalue()


def encoded(package: Path) -> str:
    """The archive as text, for standard input."""
    return base64.b64encode(archive(package)).decode()


def _add(bundle: zipfile.ZipFile, name: str, text: str) -> None:
    bundle.writestr(zipfile.ZipInfo(name, _EPOCH), text, compress_type=zipfile.ZIP_DEFLATED)
